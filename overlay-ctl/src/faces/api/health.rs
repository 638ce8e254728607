//! The health of each service, as clients of `grpc.health.v1` hear of it.

use crate::{
    dataplane::kernel::LocalStatus,
    faces::{Facts, Health, Service, health},
    proto::v1::{cluster_server, endpoints_server, networks_server, nodes_server, watch_server},
};
use std::time::Duration;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};

/// How often it is looked whether there is a leader.
const LOOK: Duration = Duration::from_millis(500);

/// The name by which a client asks for a service's health.
fn name(service: Service) -> &'static str {
    match service {
        // What the protocol says of a server as a whole.
        Service::Node => "",
        Service::Networks => networks_server::SERVICE_NAME,
        Service::Endpoints => endpoints_server::SERVICE_NAME,
        Service::Nodes => nodes_server::SERVICE_NAME,
        Service::Cluster => cluster_server::SERVICE_NAME,
        Service::Watch => watch_server::SERVICE_NAME,
    }
}

/// What clients were told last.
pub(super) struct Told {
    reporter: HealthReporter,
    last: Option<[Health; 6]>,
}

impl Told {
    /// Tells clients the health of each service. `facts` are those of now.
    pub(super) async fn new(reporter: HealthReporter, facts: &Facts) -> Self {
        let mut told = Self { reporter, last: None };
        told.tell(facts).await;
        told
    }

    /// Tells them again whenever it changes, and before it returns that nothing serves any more. It returns when `stop`
    /// is cancelled, so that nobody is sent to a node that has closed its sockets.
    pub(super) async fn follow(
        mut self,
        facts: impl Fn() -> Facts,
        mut status: watch::Receiver<LocalStatus>,
        stop: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                changed = status.changed() => if changed.is_err() { break },
                () = sleep(LOOK) => {}
            }
            self.tell(&facts()).await;
        }
        self.tell(&Facts { is_ending: true, ..facts() }).await;
    }

    async fn tell(&mut self, facts: &Facts) {
        let now = health(facts);
        let served = |service| {
            let last = self.last.as_ref()?.iter().find(|health| health.service == service)?;
            Some(last.serves())
        };
        for health in &now {
            let (serves, served) = (health.serves(), served(health.service));
            if served == Some(serves) {
                continue;
            }
            let status = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
            self.reporter.set_service_status(name(health.service), status).await;
            // A start is not a loss, and an end is logged as such.
            if health.service == Service::Node && served.is_some() && !facts.is_ending {
                if serves {
                    tracing::info!("the node is ready again");
                } else {
                    tracing::warn!(why = health.troubles.join("; "), "the node is not ready");
                }
            }
        }
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;
    use tokio_stream::StreamExt as _;
    use tonic::Request;
    use tonic_health::{
        pb::{
            HealthCheckRequest, HealthCheckResponse,
            health_check_response::ServingStatus as Answer, health_server::Health as _,
        },
        server::HealthService,
    };

    const SOUND: Facts =
        Facts { is_ending: false, has_leader: true, is_programmed: true, error: None };
    const BOUND: Duration = Duration::from_secs(60);

    async fn serves(service: &HealthService, name: &str) -> bool {
        let request = Request::new(HealthCheckRequest { service: name.to_owned() });
        is_serving(&service.check(request).await.unwrap().into_inner())
    }

    fn is_serving(answer: &HealthCheckResponse) -> bool {
        assert_ne!(answer.status(), Answer::Unknown);
        answer.status() == Answer::Serving
    }

    #[tokio::test(start_paused = true)]
    async fn clients_hear_of_each_change_once_and_of_the_end_before_it() {
        let reporter = HealthReporter::new();
        let service = HealthService::from_health_reporter(reporter.clone());
        let waiting = Facts { is_programmed: false, ..SOUND };
        let told = Told::new(reporter, &waiting).await;
        assert!(!serves(&service, "").await && serves(&service, "overlay.v1.Networks").await);

        let (facts, now) = watch::channel(waiting);
        let (status, statuses) = watch::channel(LocalStatus::default());
        let stop = CancellationToken::new();
        let follow = told.follow(move || now.borrow().clone(), statuses, stop.clone());
        let follow = tokio::spawn(follow);
        let request = Request::new(HealthCheckRequest { service: String::new() });
        let mut heard = service.watch(request).await.unwrap().into_inner();
        let mut next = async || {
            let answer = timeout(BOUND, heard.next()).await.expect("a change is told");
            is_serving(&answer.unwrap().unwrap())
        };
        assert!(!next().await, "the first answer says how it is");
        facts.send_replace(SOUND);
        status.send_modify(|status| status.programmed = 1);
        assert!(next().await);
        // Nothing of the node's own status tells of this one. What does not change is not told meanwhile.
        sleep(20 * LOOK).await;
        facts.send_replace(Facts { has_leader: false, ..SOUND });
        assert!(!next().await);
        assert!(!serves(&service, "overlay.v1.Networks").await);
        assert!(serves(&service, "overlay.v1.Cluster").await);
        facts.send_replace(SOUND);
        assert!(next().await);

        stop.cancel();
        timeout(BOUND, follow).await.expect("it ends").unwrap();
        assert!(!next().await);
        assert!(!serves(&service, "overlay.v1.Cluster").await);
    }
}
