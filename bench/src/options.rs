//! What the command line asks for.

use std::path::PathBuf;
use std::time::Duration;

use crate::fault::{Doing, Fault, Outcome};
use crate::measures::{Measure, Settings};

pub const USAGE: &str = "\
Usage: bench/run [OPTION]...
  --quick            does it still work? one round of one second each, direct and Weft, not waiting for quiet
  --rounds N         rounds, each with fresh processes and another order [3]
  --secs N           seconds of each load [5]
  --idle N,N         numbers of idle connections at which memory is read [1000,5000]
  --peers NAME,...   of direct, weft, envoy, haproxy, nginx, consul, stunnel [all that are found]
  --measures NAME,.. of pingpong, connect, http, bulk1, bulk8, reverse1, mixed, idle [all]
  --max-foreign P    a measure is repeated while others had more than P % of the machine [5]
  --out DIRECTORY    where results.md and results.json go [bench/results]
Peers are looked for on PATH; WEFT_BIN, ENVOY_BIN, HAPROXY_BIN, NGINX_BIN, CONSUL_BIN and STUNNEL_BIN
name other executables. Without WEFT_BIN, the release build of this tree is measured.";

pub struct Options {
    pub rounds: usize,
    pub settings: Settings,
    /// Names; empty for all that are found.
    pub peers: Vec<String>,
    pub measures: Vec<Measure>,
    pub max_foreign_share: f64,
    /// Longest wait for a quiet machine before each measure.
    pub quiet_wait: Duration,
    /// How often a measure is tried while others disturb it; the least disturbed one counts.
    pub tries: usize,
    pub out: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rounds: 3,
            settings: Settings { span: Duration::from_secs(5), idle: vec![1000, 5000] },
            peers: Vec::new(),
            measures: Measure::ALL.to_vec(),
            max_foreign_share: 0.05,
            quiet_wait: Duration::from_secs(15),
            tries: 3,
            out: PathBuf::from("results"),
        }
    }
}

impl Options {
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Outcome<Self> {
        let mut options = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(name) = arguments.next() {
            if name == "--quick" {
                (options.rounds, options.tries, options.quiet_wait) = (1, 1, Duration::ZERO);
                options.settings = Settings { span: Duration::from_secs(1), idle: vec![1000] };
                options.peers = vec!["direct".to_owned(), "weft".to_owned()];
                continue;
            }
            let value =
                arguments.next().ok_or_else(|| Fault::new(format!("{name} needs a value\n{USAGE}")))?;
            options.set(&name, &value).doing(format!("{name} {value}"))?;
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Outcome<()> {
        let list = || value.split(',').map(str::to_owned);
        match name {
            "--rounds" => self.rounds = positive(value)?,
            "--secs" => self.settings.span = Duration::from_secs(positive(value)? as u64),
            "--idle" => {
                self.settings.idle = list().map(|number| positive(&number)).collect::<Outcome<_>>()?;
            }
            "--peers" => self.peers = list().collect(),
            "--measures" => self.measures = list().map(|name| measure(&name)).collect::<Outcome<_>>()?,
            "--max-foreign" => {
                self.max_foreign_share = value.parse::<f64>().doing("not a number")? / 100.0;
            }
            "--out" => self.out = PathBuf::from(value),
            _ => return Err(Fault::new(format!("there is no such option\n{USAGE}"))),
        }
        Ok(())
    }
}

fn positive(value: &str) -> Outcome<usize> {
    match value.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(Fault::new("not a whole number above 0")),
    }
}

fn measure(name: &str) -> Outcome<Measure> {
    let known = Measure::ALL.into_iter().find(|measure| measure.name() == name);
    known.ok_or_else(|| Fault::new(format!("there is no measure {name}\n{USAGE}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Outcome<Options> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_add_up() {
        let options =
            parse("--quick --secs 2 --measures http,idle --peers envoy --max-foreign 2").unwrap();
        assert_eq!((options.rounds, options.settings.span), (1, Duration::from_secs(2)));
        assert!(options.measures == [Measure::Http, Measure::Idle]);
        assert_eq!(options.peers, ["envoy"]);
        assert!((options.max_foreign_share - 0.02).abs() < 1e-9);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, said) in [
            ("--rounds 0", "--rounds 0: not a whole number above 0"),
            ("--rounds", "--rounds needs a value"),
            ("--measures http,htp", "there is no measure htp"),
            ("--what 1", "--what 1: there is no such option"),
        ] {
            let error = parse(line).err().unwrap().to_string();
            assert!(error.starts_with(said) || error.contains(said), "{error}");
        }
    }
}
