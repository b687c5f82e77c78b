{{- define "layerwatch.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "layerwatch.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains (include "layerwatch.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "layerwatch.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "layerwatch.selectorLabels" -}}
app.kubernetes.io/name: {{ include "layerwatch.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "layerwatch.labels" -}}
{{ include "layerwatch.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{/* Of the pod of `helm test`: none of the daemon's, so that the service does not pick it. */}}
{{- define "layerwatch.testLabels" -}}
app.kubernetes.io/name: {{ printf "%s-test" (include "layerwatch.name" . | trunc 58 | trimSuffix "-") }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "layerwatch.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* layerwatch.yaml; the store's default stands here because a value of another type could not replace it. */}}
{{- define "layerwatch.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- if not (dig "store" "url" "" $config) -}}
{{- $_ := set $config "store" (merge (dict "url" "sqlite:////var/lib/layerwatch/layerwatch.db") (default dict $config.store)) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{- define "layerwatch.podAnnotations" -}}
{{- $annotations := dict -}}
{{- if not .Values.existingConfigMap -}}
{{- $_ := set $annotations "checksum/config" (include "layerwatch.config" . | sha256sum) -}}
{{- end -}}
{{- if not .Values.serviceMonitor.enabled -}}
{{- $_ := set $annotations "prometheus.io/scrape" "true" -}}
{{- $_ := set $annotations "prometheus.io/port" "9466" -}}
{{- end -}}
{{- toYaml (merge dict .Values.podAnnotations $annotations) -}}
{{- end -}}

{{- define "layerwatch.configMap" -}}
{{- default (include "layerwatch.fullname" .) .Values.existingConfigMap -}}
{{- end -}}

{{- define "layerwatch.secret" -}}
{{- default (include "layerwatch.fullname" .) .Values.existingSecret -}}
{{- end -}}

{{- define "layerwatch.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "layerwatch.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}
