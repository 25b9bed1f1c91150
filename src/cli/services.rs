//! `weft services`: all applications and how they are.

use super::call::Call;
use super::client::Client;
use super::error::CliError;
use super::output::{Cell, Style, Tone, table};
use super::report::Report;
use crate::api::json::weft::ServiceSummary;

pub(super) async fn run(client: &Client, style: Style) -> Result<Report, CliError> {
    let services: Vec<ServiceSummary> = client.call(&Call::get("/v1/weft/services")).await?;
    report(&services, style)
}

fn report(services: &[ServiceSummary], style: Style) -> Result<Report, CliError> {
    let rows: Vec<_> = services.iter().map(row).collect();
    let head = ["NAME", "INSTANCES", "PASSING", "WARNING", "CRITICAL", "MESHED", "TAGS"];
    let report = Report::new(table(style, &head, &rows), services)?;
    Ok(if services.is_empty() { report.with_note("no services are registered") } else { report })
}

fn row(service: &ServiceSummary) -> Vec<Cell> {
    let number = |tone, number: usize| {
        Cell::new(if number == 0 { Tone::Plain } else { tone }, number.to_string())
    };
    vec![
        Cell::from(&service.name),
        Cell::from(service.instances.to_string()),
        number(Tone::Good, service.passing),
        number(Tone::Warn, service.warning),
        number(Tone::Bad, service.critical),
        Cell::from(format!("{}/{}", service.meshed, service.instances)),
        Cell::from(service.tags.join(",")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(name: &str, critical: usize) -> ServiceSummary {
        ServiceSummary {
            name: name.to_owned(),
            instances: 2,
            passing: 2 - critical,
            warning: 0,
            critical,
            meshed: 1,
            tags: vec!["v1".to_owned(), "v2".to_owned()],
        }
    }

    #[test]
    fn golden() {
        let style = Style { color: false, unicode: false };
        let report = report(&[service("api", 0), service("database", 1)], style).unwrap();
        assert_eq!(
            report.text,
            "NAME      INSTANCES  PASSING  WARNING  CRITICAL  MESHED  TAGS\n\
             api       2          2        0        0         1/2     v1,v2\n\
             database  2          1        0        1         1/2     v1,v2\n"
        );
        assert_eq!(
            report.json[0],
            json!({"name": "api", "instances": 2, "passing": 2, "warning": 0, "critical": 0,
                   "meshed": 1, "tags": ["v1", "v2"]})
        );
    }

    #[test]
    fn an_empty_mesh_says_so_beside_the_data() {
        let style = Style { color: false, unicode: false };
        let report = report(&[], style).unwrap();
        assert_eq!(report.json, json!([]));
        assert_eq!(report.note.as_deref(), Some("no services are registered"));
    }
}
