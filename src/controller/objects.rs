//! The objects of a scope as the watch showed them last, packed: there may be ten thousand, and to most of them nothing happens.
//!
//! Keeps of each what reconciliation reads, as compressed text; it is taken apart when the object is looked at. Most of that
//! text is what all objects say, so `typical.json` is what it is compressed by.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use lz4_flex::block::{compress_prepend_size_with_dict, decompress_size_prepended_with_dict};

use crate::api::PersistedCollection;

/// What objects have in common. If it is like none, they only take more memory.
const TYPICAL: &[u8] = include_bytes!("objects/typical.json");

/// The name of an object within its namespace; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ObjectName {
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
}

/// All objects, by namespace and name.
#[derive(Debug, Default)]
pub(super) struct Objects {
    known: Packed,
    /// What has come of a list that is not complete.
    listed: Option<(Packed, HashSet<String>)>,
}

type Packed = BTreeMap<Arc<str>, BTreeMap<Arc<str>, Box<[u8]>>>;

impl Objects {
    /// Begins a new list: what it does not have is gone at its end.
    pub(super) fn begin_list(&mut self) {
        self.listed = Some((Packed::new(), HashSet::new()));
    }

    /// Takes one of the list.
    pub(super) fn list(&mut self, collection: PersistedCollection) {
        let (packed, uids) = self.listed.get_or_insert_default();
        uids.extend(collection.uid());
        insert(packed, collection);
    }

    /// The list is complete; gives the uids of all that are there.
    pub(super) fn end_list(&mut self) -> HashSet<String> {
        let (packed, uids) = self.listed.take().unwrap_or_default();
        self.known = packed;
        uids
    }

    /// Takes an object as it is at present.
    pub(super) fn insert(&mut self, collection: PersistedCollection) -> Option<ObjectName> {
        insert(&mut self.known, collection)
    }

    pub(super) fn remove(&mut self, collection: &PersistedCollection) -> Option<ObjectName> {
        let namespace = collection.metadata.namespace.as_deref()?;
        let object = self.find(namespace, &collection.name_any())?;
        let objects = self.known.get_mut(namespace)?;
        objects.remove(&object.name);
        if objects.is_empty() {
            self.known.remove(namespace);
        }
        Some(object)
    }

    /// What reconciliation reads of an object.
    pub(super) fn get(&self, object: &ObjectName) -> Option<PersistedCollection> {
        self.known.get(&object.namespace)?.get(&object.name).map(|packed| unpack(packed))
    }

    /// The name of an object that is there.
    pub(super) fn find(&self, namespace: &str, name: &str) -> Option<ObjectName> {
        let (namespace, objects) = self.known.get_key_value(namespace)?;
        let (name, _) = objects.get_key_value(name)?;
        Some(ObjectName { namespace: Arc::clone(namespace), name: Arc::clone(name) })
    }

    /// Those of one namespace, or of all.
    pub(super) fn names(&self, namespace: Option<&str>) -> impl Iterator<Item = ObjectName> {
        let namespaces = self.known.iter().filter(move |(other, _)| namespace.is_none_or(|namespace| namespace == &***other));
        namespaces.flat_map(|(namespace, objects)| {
            objects.keys().map(|name| ObjectName { namespace: Arc::clone(namespace), name: Arc::clone(name) })
        })
    }
}

/// `None` for an object without a name or namespace, which no API server sends.
fn insert(packed: &mut Packed, collection: PersistedCollection) -> Option<ObjectName> {
    let namespace = collection.metadata.namespace.as_deref()?;
    let name = Arc::<str>::from(collection.metadata.name.as_deref()?);
    let known = packed.get_key_value(namespace).map(|(namespace, _)| Arc::clone(namespace));
    let namespace = known.unwrap_or_else(|| Arc::from(namespace));
    let objects = packed.entry(Arc::clone(&namespace)).or_default();
    let name = objects.get_key_value(&name).map_or(name, |(known, _)| Arc::clone(known));
    objects.insert(Arc::clone(&name), pack(collection));
    Some(ObjectName { namespace, name })
}

fn pack(mut collection: PersistedCollection) -> Box<[u8]> {
    let ObjectMeta { name, namespace, uid, generation, resource_version, finalizers, deletion_timestamp, .. } =
        collection.metadata;
    collection.metadata = ObjectMeta {
        name,
        namespace,
        uid,
        generation,
        resource_version,
        finalizers,
        deletion_timestamp,
        ..ObjectMeta::default()
    };
    let text = serde_json::to_vec(&collection).expect("what was read from JSON is JSON");
    compress_prepend_size_with_dict(&text, TYPICAL).into()
}

fn unpack(packed: &[u8]) -> PersistedCollection {
    let text = decompress_size_prepended_with_dict(packed, TYPICAL).expect("it was packed here");
    serde_json::from_slice(&text).expect("it was packed here")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typical() -> Vec<PersistedCollection> {
        serde_json::from_slice(TYPICAL).unwrap()
    }

    fn called(name: &str) -> PersistedCollection {
        let mut collection = typical().remove(0);
        collection.metadata.name = Some(name.to_owned());
        collection.metadata.uid = Some(format!("uid of {name}"));
        collection
    }

    #[test]
    fn what_reconciliation_reads_is_as_it_was_and_small() {
        for mut collection in typical() {
            collection.metadata.resource_version = Some("123456".to_owned());
            assert!(pack(collection.clone()).len() < 200);
            let mut objects = Objects::default();
            let mut labelled = collection.clone();
            labelled.metadata.labels = Some(BTreeMap::from([("a".to_owned(), "b".to_owned())]));
            let name = objects.insert(labelled).unwrap();
            assert_eq!(objects.get(&name), Some(collection));
        }
    }

    #[test]
    fn a_list_takes_the_place_of_all_once_it_is_complete() {
        let mut objects = Objects::default();
        let [old, kept] = ["old", "kept"].map(|name| objects.insert(called(name)).unwrap());
        objects.begin_list();
        objects.list(called("kept"));
        assert!(objects.get(&old).is_some());
        assert_eq!(objects.end_list(), HashSet::from(["uid of kept".to_owned()]));
        assert_eq!((objects.get(&old), objects.names(None).collect::<Vec<_>>()), (None, vec![kept]));
    }

    #[test]
    fn objects_are_found_by_name_until_they_are_removed() {
        let mut objects = Objects::default();
        let name = objects.insert(called("daily")).unwrap();
        assert_eq!(objects.find("default", "daily"), Some(name));
        assert_eq!(objects.names(Some("other")).count(), 0);
        objects.remove(&called("daily"));
        assert_eq!((objects.find("default", "daily"), objects.names(None).count()), (None, 0));
    }
}
