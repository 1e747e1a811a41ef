{{/* The name of everything. NAME-headless has to fit into 63 characters. */}}
{{- define "eligibilityd.name" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains "eligibilityd" .Release.Name -}}
{{- .Release.Name | trunc 54 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-eligibilityd" (.Release.Name | trunc 41 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{- define "eligibilityd.selectorLabels" -}}
app.kubernetes.io/name: eligibilityd
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "eligibilityd.labels" -}}
{{ include "eligibilityd.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | replace "+" "_" | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "eligibilityd-%s" .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" | quote }}
{{- end -}}

{{/* metadata: {name, namespace, labels}; takes (dict "root" $ "suffix" "" "labels" dict) */}}
{{- define "eligibilityd.metadata" -}}
name: {{ include "eligibilityd.name" .root }}{{ .suffix }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- merge (include "eligibilityd.labels" .root | fromYaml) (.labels | default dict) | toYaml | nindent 2 }}
{{- end -}}

{{- define "eligibilityd.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (.tag | default (replace "+" "_" $.Chart.AppVersion)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "eligibilityd.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "eligibilityd.name" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* Every value that is neither a section nor a list, as JSON with a comma after each: its path, its last
key, and the value as a string. */}}
{{- define "eligibilityd.leaves" -}}
{{- if kindIs "map" .value -}}
{{- range $key, $value := .value -}}
{{- include "eligibilityd.leaves" (dict "path" (printf "%s.%s" $.path $key) "key" $key "value" $value) -}}
{{- end -}}
{{- else if kindIs "slice" .value -}}
{{- range $i, $value := .value -}}
{{- include "eligibilityd.leaves" (dict "path" (printf "%s[%d]" $.path $i) "key" $.key "value" $value) -}}
{{- end -}}
{{- else if not (kindIs "invalid" .value) -}}
{{- dict "path" .path "key" .key "value" (toString .value) | toJson -}},
{{- end -}}
{{- end -}}

{{/* {"leaves": [...]} of config */}}
{{- define "eligibilityd.config" -}}
{"leaves": [{{ include "eligibilityd.leaves" (dict "path" "config" "key" "" "value" .Values.config) | trimSuffix "," }}]}
{{- end -}}

{{/* The address of a listener; takes (dict "root" $ "listener" "grpc"). Without one, the program's default. */}}
{{- define "eligibilityd.address" -}}
{{- $defaults := dict "grpc" "127.0.0.1:9090" "http" "127.0.0.1:8080" "probe" "" -}}
{{- dig "server" .listener "address" (get $defaults .listener) .root.Values.config -}}
{{- end -}}

{{- define "eligibilityd.port" -}}
{{- include "eligibilityd.address" . | regexFind "[0-9]+$" -}}
{{- end -}}

{{/* drain + shutdown_timeout + 5 s in seconds, rounded up. The dates are a detour to Go's parser of
durations, which the program uses as well. */}}
{{- define "eligibilityd.grace" -}}
{{- $drain := dig "server" "drain" "5s" .Values.config -}}
{{- $timeout := dig "server" "shutdown_timeout" "10s" .Values.config -}}
{{- toDate "2006-01-02T15:04:05Z07:00" "1970-01-01T00:00:05Z" | mustDateModify $drain | mustDateModify $timeout | mustDateModify "999999999ns" | unixEpoch -}}
{{- end -}}

{{/* Whether the refresh token is in a file: "true" or "". */}}
{{- define "eligibilityd.tokenFile" -}}
{{- range (include "eligibilityd.config" . | fromJson).leaves -}}
{{- if and (eq .key "refresh_token_file") .value -}}true{{- break -}}{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether the decision log is a file: "true" or "". */}}
{{- define "eligibilityd.logFile" -}}
{{- if not (has (dig "decision_log" "file" "" .Values.config) (list "" "-")) -}}true{{- end -}}
{{- end -}}
