{{- define "lenspipe.name" -}}
{{- .Values.nameOverride | default .Release.Name | trunc 40 | regexFind "^.*[^-]" -}}
{{- end -}}

{{/* Of pods. No app.kubernetes.io/name: that of Ray's pods is KubeRay's, whose Services select by it. */}}
{{- define "lenspipe.selector" -}}
app.kubernetes.io/part-of: lenspipe
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "lenspipe.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/name: lenspipe
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{ include "lenspipe.selector" . }}
{{- end -}}

{{- define "lenspipe.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "lenspipe.name" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* Image of a role: a list of the root and "cpu" or "gpu". */}}
{{- define "lenspipe.image" -}}
{{- $root := index . 0 -}}
{{- $kind := index . 1 -}}
{{- $image := $root.Values.image -}}
{{- $tag := ternary $image.gpuTag $image.tag (eq $kind "gpu") -}}
{{- printf "%s:%s" $image.repository ($tag | default (printf "%s-%s" $root.Chart.AppVersion $kind)) -}}
{{- end -}}

{{- define "lenspipe.output" -}}
{{- .Values.output.url | default (printf "/var/lib/lenspipe/%s" .Values.output.folder) -}}
{{- end -}}

{{- define "lenspipe.served" -}}
{{- .Values.serve.run | default (include "lenspipe.output" .) -}}
{{- end -}}

{{- define "lenspipe.nights" -}}
{{- .Values.nightly.outputUrl | default (printf "/var/lib/lenspipe/%s" (list (dir .Values.output.folder) "@NIGHT@" | join "/" | clean)) -}}
{{- end -}}

{{/* Whether anything of the release writes or reads the volume. */}}
{{- define "lenspipe.onVolume" -}}
{{- $job := and .Values.job.enabled (not .Values.output.url) -}}
{{- $nightly := and .Values.nightly.enabled (not .Values.nightly.outputUrl) -}}
{{- $serve := and .Values.serve.enabled (hasPrefix "/var/lib/lenspipe/" (include "lenspipe.served" .)) -}}
{{- if or $job $nightly $serve }}yes{{ end -}}
{{- end -}}

{{- define "lenspipe.claim" -}}
{{- .Values.output.volume.existingClaim | default (printf "%s-output" (include "lenspipe.name" .)) -}}
{{- end -}}

{{- define "lenspipe.tokenSecret" -}}
{{- .Values.ray.auth.existingSecret | default (printf "%s-ray-token" (include "lenspipe.name" .)) -}}
{{- end -}}

{{/* What the cluster has at most, which the run is planned for; CPUs of nodes without GPUs. */}}
{{- define "lenspipe.mostCpus" -}}
{{- mul .Values.ray.cpu.maxReplicas .Values.ray.cpu.cpus -}}
{{- end -}}

{{- define "lenspipe.mostGpus" -}}
{{- $gpu := .Values.ray.gpu -}}
{{- ternary (mul $gpu.maxReplicas $gpu.gpus) 0 $gpu.enabled -}}
{{- end -}}

{{/* Words without quotes or blanks in them: shells of the submitter and of the head read it. */}}
{{- define "lenspipe.options" -}}
--output {{ include "lenspipe.output" . }} --address auto --wait {{ .Values.job.lockWaitSeconds }}
{{- if .Values.job.retryFailed }} --retry-failed{{ end }}
{{- end -}}

{{- define "lenspipe.entrypoint" -}}
lenspipe run /etc/lenspipe/survey.yaml {{ include "lenspipe.options" . }} --max-cpus {{ include "lenspipe.mostCpus" . }} --max-gpus {{ include "lenspipe.mostGpus" . }}
{{- end -}}

{{/* The head of a cluster that was there has no file of ours; the survey comes with the job. */}}
{{- define "lenspipe.entrypointElsewhere" -}}
survey=$(mktemp -d)/survey.yaml && printenv LENSPIPE_SURVEY | base64 -d > $survey && echo "$LENSPIPE_SURVEY_SHA256  $survey" | sha256sum -c > /dev/null && exec lenspipe run $survey {{ include "lenspipe.options" . }}
{{- end -}}

{{/* Its environment. The survey is base64: Ray puts variables of the node in the place of $NAME. */}}
{{- define "lenspipe.variablesElsewhere" -}}
{{- $survey := .Values.survey -}}
{{- dict "env_vars" (dict "LENSPIPE_SURVEY" ($survey | b64enc) "LENSPIPE_SURVEY_SHA256" ($survey | sha256sum) "RAY_JOB_STOP_WAIT_TIME_S" (include "lenspipe.stopWaitSeconds" .)) | toJson -}}
{{- end -}}

{{/* Ray kills a job that is told to stop after 3 s otherwise; the driver commits what it was at. */}}
{{- define "lenspipe.stopWaitSeconds" -}}
30
{{- end -}}
