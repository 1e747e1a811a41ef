{{/* Fails with every reason for which these values cannot work. The program checks config itself; here
is only what the chart has to know about it. */}}
{{- define "eligibilityd.check" -}}
{{- $problems := list -}}
{{- $insecure := dig "server" "insecure" false .Values.config -}}
{{- $protected := and (dig "server" "tls" "certificate_file" "" .Values.config) (or (dig "auth" "certificates" "" .Values.config) (dig "auth" "tokens_file" "" .Values.config) (dig "auth" "jwt" "" .Values.config)) -}}
{{- range $listener := list "grpc" "http" "probe" -}}
  {{- $address := include "eligibilityd.address" (dict "root" $ "listener" $listener) -}}
  {{- $loopback := regexMatch "^(localhost|127[.][0-9.]+|\\[::1\\]):" $address -}}
  {{- if not (regexMatch ":[1-9][0-9]*$" $address) -}}
    {{- $problems = append $problems (printf "config.server.%s.address: %q has no port; write \":%s\", for instance" $listener $address (get (dict "grpc" "9090" "http" "8080" "probe" "9092") $listener)) -}}
  {{- else if eq $listener "probe" -}}
    {{- if $loopback -}}
      {{- $problems = append $problems (printf "config.server.probe.address: the kubelet cannot reach %s; write \":9092\"" $address) -}}
    {{- end -}}
  {{- else if not (or $loopback $insecure $protected) -}}
    {{- $problems = append $problems (printf "config.server.%s.address: %s can be reached from other pods, so it needs config.server.tls, with the files of a Secret in secrets, and one of config.auth.certificates, config.auth.tokens_file and config.auth.jwt. Set config.server.insecure: true only if something in front, such as a service mesh, does what is missing" $listener $address) -}}
  {{- end -}}
{{- end -}}
{{- range (include "eligibilityd.config" . | fromJson).leaves -}}
  {{- if and .value (has .key (list "client_secret" "password" "integrity_key" "integrity_key_previous" "headers")) -}}
    {{- $problems = append $problems (printf "%s: a ConfigMap is no place for a secret; put it in a Secret, list that in secrets, and give %s_file: /etc/eligibilityd/secrets/DIRECTORY/KEY" .path .key) -}}
  {{- end -}}
  {{- if and .value (eq .key "refresh_token_file") -}}
    {{- if or $.Values.autoscaling.enabled (gt (int $.Values.replicaCount) 1) -}}
      {{- $problems = append $problems (printf "%s: each renewal of the refresh token replaces the file, in a volume that pods on different nodes cannot share, so there can be only one replica. Either set replicaCount: 1 and autoscaling.enabled: false, or keep the token in an Azure Key Vault, for any number of replicas: refresh_token_vault in place of refresh_token_file" .path) -}}
    {{- end -}}
    {{- if not (regexMatch "^/var/lib/eligibilityd/[^/]+$" .value) -}}
      {{- $problems = append $problems (printf "%s: %q is not directly in /var/lib/eligibilityd, where the volume is" .path .value) -}}
    {{- end -}}
  {{- end -}}
  {{- if hasPrefix "/etc/eligibilityd/secrets/" .value -}}
    {{- $directory := index (splitList "/" .value) 4 -}}
    {{- if not (hasKey $.Values.secrets $directory) -}}
      {{- $problems = append $problems (printf "%s: secrets has no %q, so there will be no file %s" .path $directory .value) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if include "eligibilityd.logFile" . -}}
  {{- $file := toString .Values.config.decision_log.file -}}
  {{- if not (regexMatch "^/var/log/eligibilityd/[^/]+$" $file) -}}
    {{- $problems = append $problems (printf "config.decision_log.file: %q is not directly in /var/log/eligibilityd, where the volume is; \"-\" is standard output" $file) -}}
  {{- else if not .Values.decisionLog.volume -}}
    {{- $problems = append $problems "config.decision_log.file: it needs decisionLog.volume, since the root filesystem cannot be written to; \"-\" is standard output" -}}
  {{- end -}}
{{- end -}}
{{- range .Values.env -}}
  {{- if hasPrefix "ELIGIBILITY_" .name -}}
    {{- $problems = append $problems (printf "env: %s would override config, from which ports, volumes and the grace period follow; give the key in config, or the file of a Secret" .name) -}}
  {{- end -}}
{{- end -}}
{{- if $problems -}}
{{- fail (printf "\n\n- %s\n" (join "\n- " $problems)) -}}
{{- end -}}
{{- end -}}
