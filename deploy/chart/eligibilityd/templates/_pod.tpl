{{/* The spec of a pod; takes (dict "root" $ "args" list "serving" bool). */}}
{{- define "eligibilityd.pod" -}}
{{- $serving := .serving -}}
{{- $args := .args -}}
{{- with .root -}}
serviceAccountName: {{ include "eligibilityd.serviceAccount" . }}
# The program does not use Kubernetes's API. The webhook of Azure Workload Identity mounts a token
# of its own.
automountServiceAccountToken: false
# Service links would set ELIGIBILITY_… variables for a Service called eligibility-…, and the program
# refuses to start with variables of that prefix that it does not know.
enableServiceLinks: false
terminationGracePeriodSeconds: {{ include "eligibilityd.grace" . }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if and $serving .Values.topologySpread.enabled }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: {{ $.root.Values.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "eligibilityd.selectorLabels" $.root | nindent 8 }}
  {{- end }}
{{- end }}
containers:
  - name: eligibilityd
    image: {{ include "eligibilityd.image" . | quote }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    args:
      {{- toYaml $args | nindent 6 }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities:
        drop: [ALL]
    {{- $env := list -}}
    {{- if include "eligibilityd.logFile" . -}}
    {{- $env = append $env (dict "name" "POD_NAME" "valueFrom" (dict "fieldRef" (dict "fieldPath" "metadata.name"))) -}}
    {{- end -}}
    {{- /* It keeps azidentity's default chain from trying the tools of developers. */ -}}
    {{- if .Values.workloadIdentity.clientId -}}
    {{- $env = append $env (dict "name" "AZURE_TOKEN_CREDENTIALS" "value" "prod") -}}
    {{- end -}}
    {{- with concat $env .Values.env }}
    env:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- if $serving }}
    ports:
      {{- range list "grpc" "http" "probe" }}
      - name: {{ . }}
        containerPort: {{ include "eligibilityd.port" (dict "root" $.root "listener" .) }}
        protocol: TCP
      {{- end }}
    # The start waits for nothing but files and the vault.
    startupProbe:
      httpGet:
        path: /healthz
        port: probe
      periodSeconds: 2
      failureThreshold: 30
    livenessProbe:
      httpGet:
        path: /healthz
        port: probe
      periodSeconds: 10
      timeoutSeconds: 3
      failureThreshold: 3
    readinessProbe:
      httpGet:
        path: /readyz
        port: probe
      periodSeconds: 5
      timeoutSeconds: 3
      failureThreshold: 2
    {{- end }}
    resources:
      {{- toYaml .Values.resources | nindent 6 }}
    volumeMounts:
      # By subPath: the directory has other mounts in it, and a changed ConfigMap restarts the pods.
      - name: config
        mountPath: /etc/eligibilityd/config.yaml
        subPath: config.yaml
        readOnly: true
      {{- range $directory, $secret := .Values.secrets }}
      - name: secret-{{ $directory }}
        mountPath: /etc/eligibilityd/secrets/{{ $directory }}
        readOnly: true
      {{- end }}
      {{- if include "eligibilityd.tokenFile" . }}
      - name: state
        mountPath: /var/lib/eligibilityd
      {{- end }}
      {{- if include "eligibilityd.logFile" . }}
      - name: decision-log
        mountPath: /var/log/eligibilityd
        subPathExpr: $(POD_NAME)
      {{- end }}
      {{- with .Values.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  - name: config
    configMap:
      name: {{ include "eligibilityd.name" . }}
  {{- range $directory, $secret := .Values.secrets }}
  - name: secret-{{ $directory }}
    secret:
      secretName: {{ $secret | quote }}
      defaultMode: 0440
  {{- end }}
  {{- if include "eligibilityd.tokenFile" . }}
  - name: state
    persistentVolumeClaim:
      claimName: {{ .Values.persistence.existingClaim | default (include "eligibilityd.name" .) | quote }}
  {{- end }}
  {{- if include "eligibilityd.logFile" . }}
  - name: decision-log
    {{- toYaml .Values.decisionLog.volume | nindent 4 }}
  {{- end }}
  {{- with .Values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
{{- end -}}

{{- define "eligibilityd.podAnnotations" -}}
{{- merge (dict "checksum/config" (include (print .Template.BasePath "/configmap.yaml") . | sha256sum)) .Values.podAnnotations | toYaml -}}
{{- end -}}

{{/* The labels of a pod; takes (dict "root" $ "labels" dict). */}}
{{- define "eligibilityd.podLabels" -}}
{{- $labels := .labels -}}
{{- if .root.Values.workloadIdentity.clientId -}}
{{- $_ := set $labels "azure.workload.identity/use" "true" -}}
{{- end -}}
{{- merge $labels .root.Values.podLabels | toYaml -}}
{{- end -}}
