//! What a released version said on the wire is said by this one too: messages, fields, enums and calls may
//! be added, and nothing may go or become something else.

use std::collections::BTreeMap;

use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto,
};

use crate::proto::{internal, v1};

pub(super) fn public() -> Vec<u8> {
    without_comments(v1::DESCRIPTORS)
}

pub(super) fn check_public(old: &[u8]) {
    check(old, v1::DESCRIPTORS);
}

pub(super) fn internal() -> Vec<u8> {
    without_comments(internal::DESCRIPTORS)
}

pub(super) fn check_internal(old: &[u8]) {
    check(old, internal::DESCRIPTORS);
}

fn without_comments(descriptors: &[u8]) -> Vec<u8> {
    let mut set = FileDescriptorSet::decode(descriptors).unwrap();
    for file in &mut set.file {
        file.source_code_info = None;
    }
    set.encode_to_vec()
}

fn check(old: &[u8], new: &[u8]) {
    let (old, new) = (promises(&decode(old)), promises(&decode(new)));
    assert!(old.len() > 20, "only {} promises: {old:#?}", old.len());
    let broken = broken(&old, &new);
    assert!(broken.is_empty(), "callers of an older version would be misunderstood: {broken:#?}");
}

fn decode(bytes: &[u8]) -> FileDescriptorSet {
    FileDescriptorSet::decode(bytes).unwrap()
}

/// All that a caller relies on: where it is, and what it is.
type Promises = BTreeMap<String, String>;

/// What of `old` is not in `new` any more, or is something else there.
fn broken(old: &Promises, new: &Promises) -> Vec<String> {
    let differs = |(place, was): (&String, &String)| match new.get(place) {
        Some(is) if is == was => None,
        Some(is) => Some(format!("{place} was {was} and is {is}")),
        None => Some(format!("{place}, {was}, is gone")),
    };
    old.iter().filter_map(differs).collect()
}

fn promises(set: &FileDescriptorSet) -> Promises {
    let mut all = Promises::new();
    for file in &set.file {
        let package = format!(".{}", file.package());
        for message in &file.message_type {
            message_promises(&package, message, &mut all);
        }
        for kind in &file.enum_type {
            enum_promises(&package, kind, &mut all);
        }
        for service in &file.service {
            for method in &service.method {
                let place = format!("{package}.{}.{}", service.name(), method.name());
                all.insert(place, call(method));
            }
        }
    }
    all
}

fn message_promises(scope: &str, message: &DescriptorProto, all: &mut Promises) {
    let scope = format!("{scope}.{}", message.name());
    all.insert(scope.clone(), "a message".to_owned());
    for field in &message.field {
        all.insert(format!("{scope} = {}", field.number()), meaning(message, field));
    }
    for nested in &message.nested_type {
        message_promises(&scope, nested, all);
    }
    for kind in &message.enum_type {
        enum_promises(&scope, kind, all);
    }
}

fn enum_promises(scope: &str, kind: &EnumDescriptorProto, all: &mut Promises) {
    let scope = format!("{scope}.{}", kind.name());
    for value in &kind.value {
        all.insert(format!("{scope} = {}", value.number()), value.name().to_owned());
    }
}

fn meaning(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let oneof = field.oneof_index.map(|index| message.oneof_decl[index as usize].name().to_owned());
    format!(
        "{} {:?} {:?} {} in {oneof:?}",
        field.name(),
        field.label(),
        field.r#type(),
        field.type_name()
    )
}

fn call(method: &MethodDescriptorProto) -> String {
    let stream = |streams| if streams { "stream " } else { "" };
    format!(
        "{}{} -> {}{}",
        stream(method.client_streaming()),
        method.input_type(),
        stream(method.server_streaming()),
        method.output_type()
    )
}

/// The check sees what it is for.
#[test]
fn what_breaks_a_caller_is_seen() {
    let set = || decode(v1::DESCRIPTORS);
    let old = promises(&set());
    let after = |change: &dyn Fn(&mut FileDescriptorSet)| {
        let mut new = set();
        change(&mut new);
        broken(&old, &promises(&new)).len()
    };
    assert_eq!(after(&|_| {}), 0);
    fn message(set: &mut FileDescriptorSet) -> &mut DescriptorProto {
        let mut messages = set.file.iter_mut().flat_map(|file| &mut file.message_type);
        messages.find(|message| message.name() == "CreateNetworkRequest").unwrap()
    }
    assert_eq!(
        after(&|set| {
            let field = FieldDescriptorProto {
                name: Some("new".into()),
                number: Some(99),
                ..Default::default()
            };
            message(set).field.push(field);
        }),
        0,
        "a field is added"
    );
    assert_eq!(after(&|set| drop(message(set).field.remove(0))), 1, "a field is gone");
    assert_eq!(after(&|set| message(set).field[0].number = Some(99)), 1, "another number");
    assert_eq!(
        after(
            &|set| message(set).field[0].set_type(prost_types::field_descriptor_proto::Type::Bytes)
        ),
        1,
        "another type"
    );
    assert_eq!(after(&|set| message(set).field[0].name = Some("other".into())), 1, "another name");
    assert_eq!(after(&|set| message(set).field.swap(0, 1)), 0, "another order");
    assert_eq!(
        after(&|set| {
            for file in &mut set.file {
                file.service.retain(|service| service.name() != "Watch");
            }
        }),
        2,
        "a service with two calls is gone"
    );
    assert_eq!(
        after(&|set| {
            for file in &mut set.file {
                for service in &mut file.service {
                    if service.name() == "Watch" {
                        service.method[0].server_streaming = None;
                    }
                }
            }
        }),
        1,
        "a call streams no more"
    );
    assert!(after(&|set| set.file.iter_mut().for_each(|file| file.enum_type.clear())) > 0);
}
