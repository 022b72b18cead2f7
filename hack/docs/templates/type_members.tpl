{{- define "type_members" -}}
{{- if eq .Name "metadata" -}}
what every Kubernetes object has
{{- else -}}
{{ markdownRenderFieldDoc .Doc | replace "<br />" " " }}
{{- end -}}
{{- end -}}
