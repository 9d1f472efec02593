//! What one step of a pass tells, with a real `redis-server`.

use super::*;

/// What the only step of a pass says of sets: `host index,index`, `-` for too many members.
async fn marks(link: &mut link::Link) -> Vec<String> {
    let step = link.look("0", "", None).await.unwrap();
    let sets = step.sets().map(Result::unwrap).map(|set| {
        let host = String::from_utf8_lossy(set.host);
        let indexes = set.indexes.map(|indexes| indexes.iter().map(|index| index.to_string()).collect());
        format!("{host} {}", indexes.map_or("-".to_owned(), |indexes: Vec<_>| indexes.join(",")))
    });
    sets.collect()
}

#[tokio::test]
async fn a_set_of_marks_may_hold_anything_beside_indexes() {
    let Some(server) = Server::start(&[]) else { return };
    let client = &mut server.client();
    let mut link = link::Link::open(&settings(server.port).redis.server).await.unwrap();
    set(client, "a", &[A, B]);
    let others = ["", "x", " 1", "01", "1.", "-1", "1e0", "0x1", "64", "640", "nan"];
    run(client, &[&["SADD", "dead:a", "0", "63", "7"] as &[_], &others].concat());
    assert_eq!(marks(&mut link).await, ["a 0,7,63"]);
    // More members than there can be indexes.
    for number in 100..200 {
        run(client, &["SADD", "dead:a", &number.to_string()]);
    }
    assert_eq!(marks(&mut link).await, ["a -"]);
    run(client, &["SET", "dead:a", "no set"]);
    assert_eq!(marks(&mut link).await, [""; 0]);
}

#[tokio::test]
async fn marks_are_asked_for_only_where_they_matter() {
    let Some(server) = Server::start(&[]) else { return };
    let client = &mut server.client();
    set(client, "one", &[A]);
    set(client, "two", &[A, B]);
    set(client, "many", &[A; 65]);
    for host in ["one", "two", "many", "none"] {
        run(client, &["SADD", &format!("dead:{host}"), "1"]);
    }
    let mut link = link::Link::open(&settings(server.port).redis.server).await.unwrap();
    assert_eq!(marks(&mut link).await, ["two 1"]);
}

/// How many lists of the only step of a pass are told.
fn told(step: &link::Step) -> Option<usize> {
    Some(step.lists()?.map(Result::unwrap).count())
}

#[tokio::test]
async fn what_a_step_says_again_is_not_sent_again() {
    let Some(server) = Server::start(&[]) else { return };
    let client = &mut server.client();
    set(client, "a", &[A, B]);
    run(client, &["SET", "frontend:b", "no list"]);
    run(client, &["SADD", "dead:a", "0"]);
    let mut link = link::Link::open(&settings(server.port).redis.server).await.unwrap();
    let first = link.look("0", "", None).await.unwrap();
    assert_eq!((told(&first), first.sets().count()), (Some(2), 1));
    let known = Some(first.digest.as_str());
    let again = link.look("0", "", known).await.unwrap();
    assert_eq!((told(&again), &again.digest, again.sets().count()), (None, &first.digest, 1));
    assert_eq!(link.look("0", "", Some("")).await.unwrap(), first);
    // Sets are told in any case: their time goes by.
    run(client, &["SADD", "dead:a", "1"]);
    assert_eq!(told(&link.look("0", "", known).await.unwrap()), None);
    assert_eq!(marks(&mut link).await, ["a 0,1"]);
    // The same bytes in other elements, and another key.
    for (key, list) in [("a", &["x", "y"] as &[&str]), ("a", &["x y"]), ("ax", &["y"]), ("c", &[A])] {
        run(client, &["FLUSHALL"]);
        set(client, key, list);
        let other = link.look("0", "", known).await.unwrap();
        assert_eq!(told(&other), Some(1), "{key} {list:?}");
        let known = Some(other.digest.as_str());
        assert_eq!(told(&link.look("0", "", known).await.unwrap()), None);
    }
}

/// What elements of the largest size make of an answer: nothing behind a target that is none.
#[tokio::test]
async fn large_lists_make_no_large_answer() {
    let Some(server) = Server::start(&[]) else { return };
    let client = &mut server.client();
    set(client, "a", &[A, &"x".repeat(5000), B]);
    set(client, "b", &[A, &"x".repeat(129), B]);
    set(client, "c", &[A, &"x".repeat(128), B]);
    let mut link = link::Link::open(&settings(server.port).redis.server).await.unwrap();
    let step = link.look("0", "", None).await.unwrap();
    let mut lists: Vec<_> = step
        .lists()
        .unwrap()
        .map(|list| match list.unwrap() {
            link::Found::List { host, elements } => {
                (host.to_vec(), elements.iter().map(|element| element.len()).collect::<Vec<_>>())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    lists.sort();
    let (label, url) = ("label".len(), A.len());
    assert_eq!(
        lists,
        [
            (b"a".to_vec(), vec![label, url, 1025]),
            (b"b".to_vec(), vec![label, url, 129]),
            (b"c".to_vec(), vec![label, url, 128, url]),
        ]
    );
}
