{{/*
What the operator may do in a namespace that it serves: the rules of the ClusterRole, or of one Role in each namespace
of `watch.namespaces`. Each line names the code that needs it.
*/}}
{{- define "mainstay.rules" -}}
# src/controller/run.rs watches the collections.
# src/controller/finalizer.rs patches the finalizer, and nothing else of an object: its spec is its user's.
- apiGroups: [mainstay.dev]
  resources: [persistedcollections]
  verbs: [list, watch, patch]
# src/controller/status/write.rs applies the status.
- apiGroups: [mainstay.dev]
  resources: [persistedcollections/status]
  verbs: [patch]
# src/controller/dereference.rs reads the one object that `pythonFrom` names, and src/operator/secrets.rs the certificates.
# Neither lists or watches them.
- apiGroups: [""]
  resources: [configmaps, secrets]
  verbs: [get]
# src/operator/secrets.rs makes and renews the certificates of a served namespace, in these two and no other Secret.
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [mainstay-ca, mainstay-tls]
  verbs: [create, patch]
# src/controller/endpoint.rs applies the ConfigMap from which workers load the keeper, and no other.
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [mainstay-keeper]
  verbs: [create, patch]
# src/pods/watch.rs matches workers to their pods, and sees why a pod does not become one.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# src/controller/endpoint.rs applies the Service `mainstay-scheduler` of a served namespace, and the EndpointSlice that
# points it at the operator pod. What does not exist yet takes `create`.
- apiGroups: [""]
  resources: [services]
  verbs: [create, patch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [create, patch]
# src/operator/leases.rs sees who serves a namespace, and takes its Lease, renews it and gives it back. One that is not there is
# made by `update`, which takes `create`.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [mainstay-scheduler]
  verbs: [list, watch, create, update]
# src/controller/events.rs tells people what happened; `patch` counts a repeated Event up. src/operator/namespaces.rs tells
# them of plain comms.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/*
What it may do outside of namespaces, with `watch.nodes`.
*/}}
{{- define "mainstay.nodeRules" -}}
# src/pods/watch.rs sees which nodes are going, so that what is on them is moved in time.
- apiGroups: [""]
  resources: [nodes]
  verbs: [list, watch]
{{- end }}
