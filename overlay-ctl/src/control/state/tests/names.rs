//! Tests of names and aliases in the state.

use super::*;

fn replica() -> Replica {
    let mut r = Replica::default();
    r.node(1).unwrap();
    r.network("net", "10.0.0.0/24", None).unwrap();
    r.network("other", "10.0.1.0/24", None).unwrap();
    r
}

fn aliases(endpoint: &Endpoint) -> Vec<&str> {
    endpoint.aliases.iter().map(EndpointName::as_str).collect()
}

#[test]
fn aliases_are_shared_and_a_name_is_no_alias() {
    let mut r = replica();
    let web1 = r.wish(&Wish { aliases: &["www", "db"], ..Wish::new("web1") }).unwrap();
    assert_eq!(aliases(&web1), ["db", "www"]);
    let web2 = r.wish(&Wish { aliases: &["www"], ..Wish::new("web2") }).unwrap();
    assert_eq!(aliases(&web2), ["www"], "two may answer to one alias");

    let refusal = r.wish(&Wish { aliases: &["web1"], ..Wish::new("web3") }).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "alias web1 is the name of endpoint web1 of network net; choose another alias"
    );
    let refusal = r.wish(&Wish::new("www")).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "name www is an alias of endpoint web1 of network net; choose another name"
    );
    for name in ["WWW", "Db"] {
        let refusal = r.wish(&Wish { netns: "ns", ..Wish::new(name) }).unwrap_err();
        assert!(matches!(refusal, Refusal::NameIsAlias { .. }), "DNS knows no case: {refusal}");
    }
    let refusal = r.wish(&Wish { aliases: &["WEB2"], ..Wish::new("web3") }).unwrap_err();
    assert!(matches!(refusal, Refusal::AliasIsName { .. }), "{refusal}");
    r.wish(&Wish { network: "other", aliases: &["web1"], ..Wish::new("www") }).unwrap();
}

#[test]
fn its_own_name_and_the_same_twice_are_harmless() {
    let mut r = replica();
    let wish = Wish { aliases: &["web1", "WEB1", "a", "A"], ..Wish::new("web1") };
    assert_eq!(aliases(&r.wish(&wish).unwrap()), ["A"]);
}

#[test]
fn a_word_comes_free_with_its_last_endpoint() {
    let mut r = replica();
    for name in ["web1", "web2"] {
        r.wish(&Wish { aliases: &["www"], ..Wish::new(name) }).unwrap();
    }
    r.remove("web1").unwrap();
    r.state = State::from_snapshot(&r.state.snapshot()).unwrap();
    assert!(r.wish(&Wish::new("www")).is_err(), "web2 still answers to it");
    r.remove("web2").unwrap();
    r.wish(&Wish::new("www")).unwrap();
    r.wish(&Wish { aliases: &["web1"], ..Wish::new("web3") }).unwrap();
}
