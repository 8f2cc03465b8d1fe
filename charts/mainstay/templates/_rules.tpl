{{/*
What the operator may do in a namespace that it serves: the rules of the ClusterRole, or of one Role in each namespace
of `watch.namespaces`. Each line names the code that needs it.
*/}}
{{- define "mainstay.rules" -}}
# src/operator watches the collections; src/controller reads them again before it acts.
# `patch` is for the finalizer alone: the controller never writes a spec.
- apiGroups: [mainstay.dev]
  resources: [persistedcollections]
  verbs: [get, list, watch, patch]
# src/controller/status.rs applies the status.
- apiGroups: [mainstay.dev]
  resources: [persistedcollections/status]
  verbs: [patch]
# src/controller/dereference.rs reads the one object that `pythonFrom` names. It does not list or watch them.
- apiGroups: [""]
  resources: [configmaps, secrets]
  verbs: [get]
# src/pods matches workers to their pods, from a watch.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
# src/operator keeps the Service `mainstay-scheduler` of a served namespace, and the EndpointSlice that points it at
# the operator pod; both go when the namespace is no longer served.
- apiGroups: [""]
  resources: [services]
  verbs: [get, create, patch, delete]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, create, patch, delete]
# src/controller/events.rs tells people what happened; `patch` counts a repeated Event up.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
