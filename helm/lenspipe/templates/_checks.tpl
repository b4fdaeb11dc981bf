{{/* What one value cannot tell alone: each line says field, expected, found. */}}
{{- define "lenspipe.checks" -}}
{{- $values := .Values -}}
{{- $auth := $values.ray.auth -}}
{{- include "lenspipe.checkName" . -}}
{{- if $values.job.enabled -}}
{{- include "lenspipe.checkSurvey" (list "survey" $values.survey) -}}
{{- end -}}
{{- if and $values.job.enabled $values.monitoring.podMonitor.enabled (not $values.ray.existingCluster) -}}
{{- include "lenspipe.checkMetrics" (list "survey" $values.survey $values.monitoring.port) -}}
{{- end -}}
{{- if and $values.job.enabled $values.ray.existingCluster -}}
{{- /* One variable of the job holds it, which Linux bounds: lenspipe/submit.py has the same limit. */ -}}
{{- if gt (len $values.survey) 90000 -}}
{{- fail (printf "survey: expected at most 90000 bytes where ray.existingCluster is set, found %d" (len $values.survey)) -}}
{{- end -}}
{{- if not (or $values.output.url $values.output.volume.existingClaim) -}}
{{- fail (printf "output.url: expected a URL where ray.existingCluster is set (or output.volume.existingClaim: what the nodes of %s mount at /var/lib/lenspipe), found none" $values.ray.existingCluster) -}}
{{- end -}}
{{- end -}}
{{- if $values.nightly.enabled -}}
{{- include "lenspipe.checkSurvey" (list "nightly.survey" $values.nightly.survey) -}}
{{- if $values.monitoring.podMonitor.enabled -}}
{{- include "lenspipe.checkMetrics" (list "nightly.survey" $values.nightly.survey $values.monitoring.port) -}}
{{- end -}}
{{- if and $values.nightly.outputUrl (not (contains "@NIGHT@" $values.nightly.outputUrl)) -}}
{{- fail (printf "nightly.outputUrl: expected a URL with @NIGHT@ in it, found %s" $values.nightly.outputUrl) -}}
{{- end -}}
{{- end -}}
{{- if and $values.ray.existingCluster (eq $auth.mode "token") (not $auth.existingSecret) -}}
{{- fail "ray.auth.existingSecret: expected the Secret of the cluster that ray.existingCluster names, found none" -}}
{{- end -}}
{{- range $name := list "cpu" "gpu" -}}
{{- $group := index $values.ray $name -}}
{{- if gt (int $group.minReplicas) (int $group.maxReplicas) -}}
{{- fail (printf "ray.%s.minReplicas: expected at most ray.%s.maxReplicas, %d, found %d" $name $name (int $group.maxReplicas) (int $group.minReplicas)) -}}
{{- end -}}
{{- end -}}
{{- if and $values.serve.enabled -}}
{{- if not $values.serve.tokensSecret -}}
{{- fail "serve.tokensSecret: expected the name of a Secret with tokens.yaml, found none" -}}
{{- end -}}
{{- include "lenspipe.checkServeMemory" $values.serve -}}
{{- if and (gt (int $values.serve.replicas) 1) (not $values.serve.grades.url) -}}
{{- fail (printf "serve.replicas: expected 1 where serve.grades.url names no database, found %d" (int $values.serve.replicas)) -}}
{{- end -}}
{{- if and $values.serve.grades.existingSecret (not $values.serve.grades.url) -}}
{{- fail "serve.grades.url: expected postgresql://HOST/DATABASE beside serve.grades.existingSecret, found none" -}}
{{- end -}}
{{- if $values.serve.ingress.enabled -}}
{{- range $key := list "host" "tlsSecret" -}}
{{- if not (index $values.serve.ingress $key) -}}
{{- fail (printf "serve.ingress.%s: expected a name where serve.ingress.enabled is true, found none" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Every name begins with it, and that of a Service begins with a letter; a release's may not. */}}
{{- define "lenspipe.checkName" -}}
{{- $name := include "lenspipe.name" . -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- fail (printf "nameOverride: expected a name of a-z, 0-9 and hyphens that begins with a letter, in place of the release's, found %s" $name) -}}
{{- end -}}
{{- end -}}

{{/* A query's process is ended at twice its memory. */}}
{{- define "lenspipe.checkServeMemory" -}}
{{- $needed := mul 2 .query.memoryMb .query.concurrent -}}
{{- $units := dict "Mi" 1 "Gi" 1024 "Ti" 1048576 -}}
{{- $given := mul (regexFind "^[0-9]+" .memory) (get $units (regexFind "[A-Z]i$" .memory)) -}}
{{- if le $given $needed -}}
{{- fail (printf "serve.memory: expected more than %dMi, twice serve.query.memoryMb for each of serve.query.concurrent, found %s" $needed .memory) -}}
{{- end -}}
{{- end -}}

{{- define "lenspipe.checkSurvey" -}}
{{- $field := index . 0 -}}
{{- $text := index . 1 -}}
{{- if not (trim $text) -}}
{{- fail (printf "%s: expected the text of a survey file (--set-file %s=survey.yaml), found none" $field $field) -}}
{{- end -}}
{{- $parsed := fromYaml $text -}}
{{- if not (hasKey $parsed "sources") -}}
{{- fail (printf "%s: expected the text of a survey file, found %s" $field (get $parsed "Error" | default "no key sources")) -}}
{{- end -}}
{{- end -}}

{{/* Metrics that nobody can scrape are no metrics. */}}
{{- define "lenspipe.checkMetrics" -}}
{{- $field := index . 0 -}}
{{- $runtime := (fromYaml (index . 1)).runtime | default dict -}}
{{- $port := index . 2 -}}
{{- if ne (int (get $runtime "metrics_port" | default 0)) (int $port) -}}
{{- fail (printf "%s: expected runtime.metrics_port: %d, as monitoring.port says, found %v" $field (int $port) (get $runtime "metrics_port" | default "none")) -}}
{{- end -}}
{{- if ne (get $runtime "metrics_host" | default "127.0.0.1") "0.0.0.0" -}}
{{- fail (printf "%s: expected runtime.metrics_host: 0.0.0.0, which Prometheus reaches, found %v" $field (get $runtime "metrics_host" | default "none")) -}}
{{- end -}}
{{- end -}}
