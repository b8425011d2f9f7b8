//! The digest of an image's tag: resolved once per revision, and the same for all of its containers.

use crate::common::{Agent, World, all_ready, node, service};
use heptad_api::{ErrorCode, operations::ImagePin};
use heptad_model::{Container, Namespace, Service, ServiceKey};

fn digest(digit: char) -> ImagePin {
    ImagePin { digest: Some(format!("sha256:{}", String::from(digit).repeat(64))) }
}

#[tokio::test]
async fn the_first_digest_that_is_found_holds_for_a_revision() {
    let world = World::new().await;
    let client = &world.client;
    let _agent = Agent::start(client, &node("n1", 4000, 4096)).await;
    client.create(&service("web", 2)).await.expect("created");
    let first = world.containers_until(all_ready(2)).await;
    let pin = async |container: &Container, proposed: ImagePin| {
        client.container_image(&container.id, &proposed).await.expect("answered")
    };
    assert_eq!(pin(&first[0], ImagePin::default()).await, ImagePin::default(), "nobody has looked yet");
    assert_eq!(pin(&first[0], digest('a')).await, digest('a'));
    assert_eq!(pin(&first[1], digest('b')).await, digest('a'), "who comes later runs what the first one found");
    assert_eq!(pin(&first[1], ImagePin::default()).await, digest('a'));
    let nonsense = ImagePin { digest: Some("latest".to_owned()) };
    let refused = client.container_image(&first[0].id, &nonsense).await.expect_err("no digest");
    assert_eq!(refused.code(), Some(ErrorCode::BadRequest));

    let key = ServiceKey::new("default", "web");
    client.restart_rollout(&key).await.expect("restarted");
    let others = |all: &[Container]| all_ready(2)(all) && all.iter().all(|c| c.revision == 2);
    let second = world.containers_until(others).await;
    assert_eq!(pin(&second[0], ImagePin::default()).await, ImagePin::default(), "a restart looks again");
    assert_eq!(pin(&second[0], digest('b')).await, digest('b'));

    client.undo_rollout(&key, None).await.expect("undone");
    let back = world.containers_until(|all| all_ready(2)(all) && all.iter().all(|c| c.revision == 1)).await;
    assert_eq!(pin(&back[0], digest('c')).await, digest('a'), "an earlier revision is what it was");

    client.delete::<Service>(&Namespace::default(), "web", None).await.expect("deleted");
    world.containers_until(<[Container]>::is_empty).await;
    client.create(&service("web", 1)).await.expect("created again");
    let anew = world.containers_until(all_ready(1)).await;
    assert_eq!(pin(&anew[0], digest('c')).await, digest('c'), "a service made again remembers nothing");
}
