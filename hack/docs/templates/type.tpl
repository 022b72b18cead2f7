{{- define "type" -}}
{{- $type := . -}}
{{- if markdownShouldRenderType $type }}
## {{ $type.Name }}

{{ $type.Doc }}
{{- if $type.References }}

Part of:
{{- range $type.SortedReferences }} {{ markdownRenderTypeLink . }}{{ end }}.
{{- end }}
{{- if and $type.IsAlias $type.Validation }}

A {{ markdownRenderType $type.UnderlyingType }}:{{ range $type.Validation }} {{ template "rule" . }}{{ end }}.
{{- end }}
{{- if $type.Members }}

| Field | Meaning | Default | Rules |
| --- | --- | --- | --- |
{{- if $type.GVK }}
| `apiVersion`, `kind` | `{{ $type.GVK.Group }}/{{ $type.GVK.Version }}`, `{{ $type.GVK.Kind }}` | | required |
{{- end }}
{{- range $type.Members }}
| `{{ .Name }}` {{ markdownRenderType .Type }} | {{ template "type_members" . }} | {{ template "default" . }} | {{ range .Validation }}{{ template "rule" . }}{{ end }} |
{{- end }}
{{- end }}
{{ end -}}
{{- end -}}

{{- define "rule" -}}
{{- if hasPrefix "Required:" . -}}required {{ else if hasPrefix "Optional:" . -}}{{- else -}}
`{{ . | replace "`" "" | replace "|" "\\|" | replace "\n" " " }}` {{ end -}}
{{- end -}}

{{- define "default" -}}
{{- if eq .Name "status" -}}conditions Unknown{{ else if .Default -}}`{{ .Default | toString | replace "|" "\\|" }}`{{- end -}}
{{- end -}}
