{{- /* A pod of one container. Dict: root, name, args, pool (resources, nodeSelector,
       tolerations), grace; and where they apply: http (port of /health), comm (port),
       data (true: has the credentials), job (true: has the job file), env, sharedMemory,
       restartPolicy, deadline. */ -}}
{{- define "cube-denoise.pod" -}}
{{- $values := .root.Values -}}
{{- $files := and .data $values.credentials.fileSecretName -}}
serviceAccountName: {{ include "cube-denoise.serviceAccountName" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .grace }}
{{- with .restartPolicy }}
restartPolicy: {{ . }}
{{- end }}
{{- with .deadline }}
activeDeadlineSeconds: {{ int64 . }}
{{- end }}
{{- with $values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  {{- toYaml $values.podSecurityContext | nindent 2 }}
{{- with .pool.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pool.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: {{ .name }}
    image: {{ include "cube-denoise.image" .root | quote }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    args:
      {{- range .args }}
      - {{ . | quote }}
      {{- end }}
    {{- if or .env $values.env }}
    env:
      {{- range $name, $value := merge (dict) (.env | default dict) $values.env }}
      - name: {{ $name }}
        value: {{ $value | quote }}
      {{- end }}
    {{- end }}
    {{- if and .data $values.credentials.secretName }}
    envFrom:
      - secretRef:
          name: {{ $values.credentials.secretName }}
    {{- end }}
    resources:
      {{- range $kind, $amounts := .pool.resources }}
      {{ $kind }}:
        {{- range $name, $amount := $amounts }}
        {{ $name }}: {{ $amount | toString | quote }}
        {{- end }}
      {{- end }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL]}
    {{- if .http }}
    ports:
      {{- with .comm }}
      - name: tcp-comm
        containerPort: {{ . }}
        protocol: TCP
      {{- end }}
      - name: http-dashboard
        containerPort: {{ .http }}
        protocol: TCP
    startupProbe:
      httpGet: {path: /health, port: http-dashboard}
      periodSeconds: 5
      timeoutSeconds: 5
      failureThreshold: 60
    readinessProbe:
      httpGet: {path: /health, port: http-dashboard}
      periodSeconds: 10
      timeoutSeconds: 5
    livenessProbe:  # slow: compiled code may hold the interpreter for a while
      httpGet: {path: /health, port: http-dashboard}
      periodSeconds: 30
      timeoutSeconds: 10
      failureThreshold: 6
    {{- end }}
    volumeMounts:
      - name: scratch
        mountPath: /tmp
      {{- if .sharedMemory }}
      - name: shared-memory
        mountPath: /dev/shm
      {{- end }}
      {{- if .job }}
      - name: job
        mountPath: /etc/cube-denoise
        readOnly: true
      {{- end }}
      {{- if $files }}
      - name: credentials
        mountPath: /var/run/secrets/cube-denoise
        readOnly: true
      {{- end }}
volumes:
  - name: scratch
    emptyDir:
      sizeLimit: {{ $values.scratch }}
  {{- with .sharedMemory }}
  - name: shared-memory
    emptyDir:
      medium: Memory
      sizeLimit: {{ . }}
  {{- end }}
  {{- if .job }}
  - name: job
    configMap:
      name: {{ include "cube-denoise.fullname" .root }}-job
  {{- end }}
  {{- if $files }}
  - name: credentials
    secret:
      secretName: {{ $values.credentials.fileSecretName }}
      defaultMode: 0440
  {{- end }}
{{- end }}

{{- define "cube-denoise.schedulerPod" -}}
{{- $args := list "dask" "scheduler" "--port" "8786" "--dashboard-address" ":8787" -}}
{{- include "cube-denoise.pod" (dict "root" . "name" "scheduler" "args" $args "pool" .Values.scheduler "comm" 8786 "http" 8787 "grace" 30) }}
{{- end }}

{{- /* The name must be the operator's, which retires workers by it; 0.9 of the memory
       limit leaves room for the nanny; /tmp is where a pod may spill to. */ -}}
{{- define "cube-denoise.workerPod" -}}
{{- $threads := int .Values.worker.threads -}}
{{- $args := list "dask" "worker" "--name" "$(DASK_WORKER_NAME)" "--nworkers" "1" "--nthreads" $threads "--memory-limit" "0.9" "--resources" (printf "CPU_IO=%d" $threads) "--local-directory" "/tmp" "--dashboard-address" ":8788" -}}
{{- include "cube-denoise.pod" (dict "root" . "name" "worker" "args" $args "pool" .Values.worker "http" 8788 "data" true "grace" 60) }}
{{- end }}

{{- define "cube-denoise.gpuWorkerPod" -}}
{{- $threads := int .Values.gpuWorker.threads -}}
{{- $args := list "dask" "cuda" "worker" "--name" "$(DASK_WORKER_NAME)" "--nthreads" $threads "--memory-limit" "0.8" "--resources" (printf "GPU=%d" $threads) "--local-directory" "/tmp" "--dashboard-address" ":8788" -}}
{{- include "cube-denoise.pod" (dict "root" . "name" "worker" "args" $args "pool" .Values.gpuWorker "http" 8788 "data" true "grace" 60 "sharedMemory" .Values.gpuWorker.sharedMemory) }}
{{- end }}

{{- /* Spec of a DaskCluster; dict root, name, workers. */ -}}
{{- define "cube-denoise.daskCluster" -}}
scheduler:
  metadata:
    {{- include "cube-denoise.podMetadata" (dict "root" .root "component" "scheduler" "pinned" true) | nindent 4 }}
  spec:
    {{- include "cube-denoise.schedulerPod" .root | nindent 4 }}
  service:
    type: ClusterIP
    selector:
      dask.org/cluster-name: {{ .name }}
      dask.org/component: scheduler
    ports:
      - {name: tcp-comm, protocol: TCP, port: 8786, targetPort: tcp-comm}
      - {name: http-dashboard, protocol: TCP, port: 8787, targetPort: http-dashboard}
worker:
  replicas: {{ int .workers }}
  metadata:
    {{- include "cube-denoise.podMetadata" (dict "root" .root "component" "worker") | nindent 4 }}
  spec:
    {{- include "cube-denoise.workerPod" .root | nindent 4 }}
{{- end }}

{{- /* Worker group of GPUs; dict root, cluster, workers. */ -}}
{{- define "cube-denoise.gpuWorkerGroup" -}}
apiVersion: kubernetes.dask.org/v1
kind: DaskWorkerGroup
metadata:
  name: {{ .cluster }}-gpu
  labels:
    {{- include "cube-denoise.labels" .root | nindent 4 }}
spec:
  cluster: {{ .cluster }}
  worker:
    replicas: {{ int .workers }}
    metadata:
      {{- include "cube-denoise.podMetadata" (dict "root" .root "component" "gpu-worker") | nindent 6 }}
    spec:
      {{- include "cube-denoise.gpuWorkerPod" .root | nindent 6 }}
{{- end }}
