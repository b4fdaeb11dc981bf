{{/* What every container may not do. */}}
{{- define "lenspipe.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* What every pod has in common: who it runs as, and no token of the Kubernetes API. */}}
{{- define "lenspipe.pod" -}}
serviceAccountName: {{ include "lenspipe.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .Values.podSecurity.runAsUser }}
  runAsGroup: {{ .Values.podSecurity.runAsGroup }}
  fsGroup: {{ .Values.podSecurity.fsGroup }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{/* Where a pod goes: nodeSelector, tolerations and affinity of one block of values. */}}
{{- define "lenspipe.placing" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Environment of whatever reads the survey's data. HOME: caches of libraries, and the root file
system is read-only. */}}
{{- define "lenspipe.env" -}}
- name: HOME
  value: /tmp
{{- with .Values.objectStore.endpointUrl }}
- name: AWS_ENDPOINT_URL_S3
  value: {{ . | quote }}
{{- end }}
{{- with .Values.objectStore.region }}
- name: AWS_DEFAULT_REGION
  value: {{ . | quote }}
{{- end }}
{{- range $name, $value := .Values.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{- define "lenspipe.envFrom" -}}
{{- with .Values.objectStore.existingSecret }}
envFrom:
  - secretRef:
      name: {{ . }}
{{- end }}
{{- end -}}

{{- define "lenspipe.rayAuth" -}}
- name: RAY_AUTH_MODE
  value: {{ .Values.ray.auth.mode }}
{{- if eq .Values.ray.auth.mode "token" }}
- name: RAY_AUTH_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ include "lenspipe.tokenSecret" . }}
      key: auth_token
{{- end }}
{{- end -}}

{{/* Mounts and volumes of data, run and scratch. */}}
{{- define "lenspipe.mounts" -}}
- name: tmp
  mountPath: /tmp
{{- if include "lenspipe.onVolume" . }}
- name: output
  mountPath: /var/lib/lenspipe
{{- end }}
{{- range $index, $volume := .Values.data }}
- name: data-{{ $index }}
  mountPath: {{ $volume.mountPath }}
  readOnly: true
  {{- with $volume.subPath }}
  subPath: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "lenspipe.volumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: {{ .Values.scratch.size }}
{{- if include "lenspipe.onVolume" . }}
- name: output
  persistentVolumeClaim:
    claimName: {{ include "lenspipe.claim" . }}
{{- end }}
{{- range $index, $volume := .Values.data }}
- name: data-{{ $index }}
  persistentVolumeClaim:
    claimName: {{ $volume.claim }}
    readOnly: true
{{- end }}
{{- end -}}

{{/* CPU is asked for and not limited: a limit makes threads wait in every period. */}}
{{- define "lenspipe.resources" -}}
requests:
  cpu: {{ .cpus | quote }}
  memory: {{ .memory }}
limits:
  memory: {{ .memory }}
{{- end -}}

{{- define "lenspipe.gpuResources" -}}
requests:
  cpu: {{ .cpus | quote }}
  memory: {{ .memory }}
  {{ .resource }}: {{ .gpus | quote }}
limits:
  memory: {{ .memory }}
  {{ .resource }}: {{ .gpus | quote }}
{{- end -}}

{{/* A worker group: a dict of root, name and kind, which is the block of ray's values. */}}
{{- define "lenspipe.workerGroup" -}}
{{- $root := .root -}}
{{- $group := index $root.Values.ray .kind -}}
{{- $replicas := ternary $group.minReplicas $group.maxReplicas $root.Values.ray.autoscaling.enabled -}}
groupName: {{ .name }}
replicas: {{ $replicas }}
minReplicas: {{ $replicas }}
maxReplicas: {{ $group.maxReplicas }}
rayStartParams:
  num-cpus: {{ $group.cpus | quote }}
  num-gpus: {{ ternary ($group.gpus | toString) "0" (eq .kind "gpu") | quote }}
template:
  metadata:
    labels:
      {{- include "lenspipe.selector" $root | nindent 6 }}
      app.kubernetes.io/component: ray
    {{- with $group.annotations }}
    annotations: {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    {{- include "lenspipe.pod" $root | nindent 4 }}
    {{- with include "lenspipe.placing" $group | trim }}{{ . | nindent 4 }}{{ end }}
    {{- if eq .kind "gpu" }}
    {{- with $group.runtimeClassName }}
    runtimeClassName: {{ . }}
    {{- end }}
    {{- end }}
    terminationGracePeriodSeconds: 60
    containers:
      - name: ray-worker
        image: {{ include "lenspipe.image" (list $root .kind) }}
        imagePullPolicy: {{ $root.Values.image.pullPolicy }}
        securityContext:
          {{- include "lenspipe.containerSecurity" $root | nindent 10 }}
        env:
          {{- include "lenspipe.env" $root | nindent 10 }}
          {{- include "lenspipe.rayAuth" $root | nindent 10 }}
        {{- with include "lenspipe.envFrom" $root | trim }}{{ . | nindent 8 }}{{ end }}
        resources:
          {{- include (ternary "lenspipe.gpuResources" "lenspipe.resources" (eq .kind "gpu")) $group | nindent 10 }}
        volumeMounts:
          {{- include "lenspipe.mounts" $root | nindent 10 }}
    volumes:
      {{- include "lenspipe.volumes" $root | nindent 6 }}
{{- end -}}
