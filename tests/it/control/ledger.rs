//! What is signed is written down before it is handed out, and what cannot be written is not handed out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tonic::{Code, Status};
use weft::control::Asked;
use weft::model::Serial;
use weft::pb;
use weft::pb::identity_client::IdentityClient;
use weft::tls::KeyRequest;

use super::enrol::{anonymous, as_agent};
use super::{Options, Plane};

/// What was written, and whether the disk is full.
#[derive(Default)]
struct Book {
    lines: Mutex<Vec<Asked>>,
    is_full: AtomicBool,
}

impl Book {
    fn last(&self) -> Asked {
        self.lines.lock().unwrap().last().cloned().expect("a line")
    }
}

async fn kept(book: &Arc<Book>) -> Plane {
    let book = Arc::clone(book);
    let write = move |asked| {
        let book = Arc::clone(&book);
        Box::pin(async move {
            // Slow enough that an answer which did not wait would be first.
            crate::pace::pause(std::time::Duration::from_millis(20)).await;
            if book.is_full.load(Ordering::SeqCst) {
                return Err("the disk is full".to_owned());
            }
            book.lines.lock().unwrap().push(asked);
            Ok(())
        }) as weft::control::Written
    };
    Plane::with(Options { write: Some(Arc::new(write)), ..Options::default() }).await
}

fn audience() -> Vec<String> {
    vec!["api".to_owned(), "web".to_owned()]
}

#[tokio::test]
async fn each_is_written_before_it_is_known() {
    let book = Arc::<Book>::default();
    let plane = kept(&book).await;
    let agent = plane.agent("web", &[]).await;
    let own = agent.handle.identity.borrow().clone().unwrap();
    let enrolled = book.last();
    assert_eq!((enrolled.call, enrolled.subject.as_str()), ("Enrol", "web"));
    assert_eq!((enrolled.caller, enrolled.outcome), (String::new(), Ok(own.serial().to_owned())));
    let mut client = IdentityClient::new(as_agent(&plane, &agent).await);
    let csr = KeyRequest::generate().unwrap().csr;
    for call in ["Renew", "Issue"] {
        let answer = if call == "Renew" {
            client.renew(pb::RenewRequest { csr: csr.clone() }).await
        } else {
            client.issue(pb::IssueRequest { csr: csr.clone() }).await
        };
        let line = book.last();
        let serial = Serial::parse(&line.outcome.unwrap()).unwrap();
        assert_eq!((line.call, line.caller.as_str()), (call, own.id().as_str()));
        assert_eq!(serial.generation, if call == "Renew" { 2 } else { 0 });
        answer.unwrap();
    }
    client.mint_jwt(pb::MintJwtRequest { audience: audience(), ttl_s: 0 }).await.unwrap();
    let minted = book.last();
    assert_eq!((minted.call, minted.outcome.unwrap().len()), ("MintJwt", 64));
    assert_eq!(minted.subject, format!("{} for api web", own.id()));
    plane.stop().await;
}

#[tokio::test]
async fn what_cannot_be_written_is_not_handed_out() {
    let book = Arc::<Book>::default();
    let plane = kept(&book).await;
    let agent = plane.agent("web", &[]).await;
    let mut nobody = IdentityClient::new(anonymous(&plane).await);
    let mut client = IdentityClient::new(as_agent(&plane, &agent).await);
    let key = KeyRequest::generate().unwrap();
    let token = plane.ca.create_token(vec![super::name("db")], std::time::Duration::from_secs(60), 1);
    let enrol =
        pb::EnrolRequest { token: token.await.unwrap(), service: "db".to_owned(), csr: key.csr.clone() };
    let renew = pb::RenewRequest { csr: key.csr.clone() };
    let mint = pb::MintJwtRequest { audience: audience(), ttl_s: 0 };
    let mut answers: Vec<Result<(), Status>> = Vec::new();
    for is_full in [true, false] {
        book.is_full.store(is_full, Ordering::SeqCst);
        answers.push(nobody.enrol(enrol.clone()).await.map(drop));
        answers.push(client.renew(renew.clone()).await.map(drop));
        answers.push(client.issue(pb::IssueRequest { csr: key.csr.clone() }).await.map(drop));
        answers.push(client.mint_jwt(mint.clone()).await.map(drop));
    }
    for refused in answers.drain(..4) {
        let refused = refused.expect_err("handed out without a line");
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        assert!(refused.message().contains("the disk is full"), "{refused:?}");
    }
    // Nobody has lost anything: the same token and the same keys come again.
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    plane.stop().await;
}
