{{- define "docket.name" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- if contains $name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}{{ end -}}
{{- end -}}
{{- end }}

{{- define "docket.selector" -}}
app.kubernetes.io/name: docket
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "docket.labels" -}}
{{ include "docket.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "docket.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "docket.configMap" -}}
{{ .Values.existingConfigMap.name | default (include "docket.name" .) }}
{{- end }}

{{/* Pipeline files by name. */}}
{{- define "docket.pipelines" -}}
{{- $given := .Values.pipelines | default dict -}}
{{- if not $given }}{{ $given = dict "opa.yaml" (.Files.Get "files/opa.yaml") }}{{ end -}}
{{- toYaml $given }}
{{- end }}

{{/* What lies in /etc/docket: pipeline files, and the policies that they name. */}}
{{- define "docket.config" -}}
{{- toYaml (merge (include "docket.pipelines" . | fromYaml) (.Values.policies | default dict)) }}
{{- end }}

{{/* Workloads by name, each with everything that it has. */}}
{{- define "docket.workloads" -}}
{{- $all := dict -}}
{{- range $name, $of := (.Values.workloads | default (dict "all" dict)) -}}
{{- $_ := set $all $name (mergeOverwrite (deepCopy $.Values.workloadDefaults) ($of | default dict)) -}}
{{- end -}}
{{- toYaml $all }}
{{- end }}

{{/* The first one's admin port is the process'. */}}
{{- define "docket.files" -}}
{{- range $file := ternary .Values.existingConfigMap.files (keys (include "docket.pipelines" . | fromYaml) | sortAlpha) (ne .Values.existingConfigMap.name "") }}
- /etc/docket/{{ $file }}
{{- end }}
{{- end }}

{{- define "docket.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "docket.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* What every container of docket is given: environment and files. */}}
{{- define "docket.env" -}}
- {name: DOCKET_LOG, value: {{ .Values.logLevel | quote }}}
{{- range $name, $value := .Values.env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- range $name, $from := .Values.secretEnv }}
- name: {{ $name }}
  valueFrom: {secretKeyRef: {name: {{ $from.secret }}, key: {{ $from.key }}}}
{{- end }}
{{- end }}

{{- define "docket.mounts" -}}
- {name: pipelines, mountPath: /etc/docket, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- range $name, $from := .Values.secretFiles }}
- {name: secret-{{ $name }}, mountPath: /run/secrets/{{ $name }}, readOnly: true}
{{- end }}
{{- end }}

{{- define "docket.secretVolumes" -}}
- {name: tmp, emptyDir: {sizeLimit: 64Mi}}
{{- range $name, $from := .Values.secretFiles }}
- {name: secret-{{ $name }}, secret: {secretName: {{ $from.secret }}, defaultMode: 0440}}
{{- end }}
{{- end }}
