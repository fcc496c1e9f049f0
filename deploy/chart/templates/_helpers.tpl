{{- define "cube-denoise.fullname" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- $name | trunc 36 | trimSuffix "-" -}}
{{- end }}

{{- define "cube-denoise.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "cube-denoise.labels" -}}
{{ include "cube-denoise.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: {{ .Chart.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* Labels and annotations of pods; dict root, component, pinned. */ -}}
{{- define "cube-denoise.podMetadata" -}}
labels:
  {{- include "cube-denoise.selectorLabels" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .component }}
  {{- with .root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if .pinned }}
annotations:  # the run ends with this pod: node autoscalers leave it alone
  cluster-autoscaler.kubernetes.io/safe-to-evict: "false"
  karpenter.sh/do-not-disrupt: "true"
{{- end }}
{{- end }}

{{- define "cube-denoise.serviceAccountName" -}}
{{- $made := ternary (include "cube-denoise.fullname" .) "default" .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default $made -}}
{{- end }}

{{- define "cube-denoise.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- /* The operator ignores changes of pods in a DaskCluster (dask/dask-kubernetes#895):
       a cluster of other pods gets another name, so an upgrade or rollback replaces it. */ -}}
{{- define "cube-denoise.clusterName" -}}
{{- $pods := list "schedulerPod" "workerPod" "gpuWorkerPod" -}}
{{- $text := "" -}}
{{- range $pods }}{{ $text = print $text (include (printf "cube-denoise.%s" .) $) }}{{ end -}}
{{- printf "%s-%s" (include "cube-denoise.fullname" .) (sha256sum $text | trunc 8) -}}
{{- end }}

{{- /* A command as JSON: run or update of a job; with frames, bulk of a plan. */ -}}
{{- define "cube-denoise.command" -}}
{{- $args := list "cube-denoise" .step "/etc/cube-denoise/job.yaml" -}}
{{- if .root.Values.frames -}}
{{- $args = list "cube-denoise" "bulk" "/etc/cube-denoise/plan.yaml" -}}
{{- if eq .step "update" }}{{ $args = append $args "--update" }}{{ end -}}
{{- end -}}
{{- toJson $args -}}
{{- end }}

{{- define "cube-denoise.bulkName" -}}
{{- printf "%s-bulk-%s" (include "cube-denoise.fullname" .) .Values.bulk.run -}}
{{- end }}
