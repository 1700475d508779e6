//! Sources that answer, fail and hang as they are told; time is an argument wherever it decides.

use super::*;
use std::sync::mpsc;

/// Answers what it is told to, one message a read; hangs while there is none.
struct Told {
    what: What,
    answers: mpsc::Receiver<Result<f64, Miss>>,
    asked: mpsc::Sender<()>,
}

impl Sensor for Told {
    fn name(&self) -> String {
        match &self.what {
            What::Temperature(name) => name.clone(),
            other => format!("{other:?}"),
        }
    }
    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        let _ = self.asked.send(());
        let value = self.answers.recv().unwrap_or(Err(absent()))?;
        Ok(vec![Reading::new(self.what.clone(), value, "test")])
    }
    fn tells_of_work(&self) -> bool {
        self.what == What::Busy
    }
}

/// As [`Told`], and shown only.
struct Aside(Told);

impl Sensor for Aside {
    fn name(&self) -> String {
        self.0.name()
    }
    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        self.0.read()
    }
    fn is_aside(&self) -> bool {
        true
    }
}

type Answer = mpsc::Sender<Result<f64, Miss>>;

fn told_of(what: What) -> (Box<dyn Sensor>, Answer, mpsc::Receiver<()>) {
    let (answer, answers) = mpsc::channel();
    let (asked, was_asked) = mpsc::channel();
    (Box::new(Told { what, answers, asked }), answer, was_asked)
}

fn told(name: &str) -> (Box<dyn Sensor>, Answer, mpsc::Receiver<()>) {
    told_of(What::Temperature(name.into()))
}

fn absent() -> Miss {
    Miss::Absent { path: "gone".into() }
}

/// Far more than a question takes, so that a stalled machine does not fail.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until the source was asked `n` more times, so that all answers before the last question have been taken in.
fn wait(asked: &mpsc::Receiver<()>, n: usize) {
    (0..n).for_each(|_| asked.recv_timeout(PATIENCE).expect("the source is asked"));
}

#[test]
fn a_source_that_hangs_is_left_behind_and_comes_back() {
    let (hanging, late, hanging_asked) = told("cv0-thermal");
    let (good, answer, good_asked) = told("cpu-thermal");
    let mut poll = Poll::start(vec![hanging, good], Duration::ZERO);
    wait(&hanging_asked, 1);
    assert!(poll.latest(Instant::now()).asking);
    // Time is an argument: later than the deadline, though no second has passed.
    let later = Instant::now() + DEADLINE * 2;
    assert_eq!(poll.latest(later).notices, ["cv0-thermal: does not answer; it is left alone until it does"]);
    answer.send(Ok(52.9)).unwrap();
    wait(&good_asked, 2);
    let value =
        |poll: &mut Poll, name: &str| poll.latest(Instant::now()).value(&What::Temperature(name.into()), Instant::now()).map(|v| v.0);
    assert_eq!(value(&mut poll, "cpu-thermal"), Some(52.9));
    // It answers at last: that is old; three good answers later it is back.
    late.send(Ok(20.0)).unwrap();
    drop(answer);
    for celsius in [30.0, 31.0, 32.0, 33.0] {
        wait(&hanging_asked, 1);
        late.send(Ok(celsius)).unwrap();
    }
    wait(&hanging_asked, 1);
    let latest = poll.latest(Instant::now());
    assert!(latest.notices.contains(&"cv0-thermal is back".to_owned()), "{:?}", latest.notices);
    assert_eq!(value(&mut poll, "cv0-thermal"), Some(33.0));
}

#[test]
fn more_hanging_sources_than_a_jetson_has_do_not_end_the_reading() {
    let (mut sources, mut kept) = (Vec::new(), Vec::new());
    for n in 0..LEFT_BEHIND_MAX {
        let (source, answer, asked) = told(&format!("cv{n}"));
        sources.push(source);
        kept.push((answer, asked));
    }
    let (good, answer, good_asked) = told("cpu-thermal");
    sources.push(good);
    let mut poll = Poll::start(sources, Duration::ZERO);
    for (_, asked) in &kept {
        wait(asked, 1);
        poll.latest(Instant::now() + DEADLINE * 2);
    }
    answer.send(Ok(50.0)).unwrap();
    wait(&good_asked, 2);
    assert!(poll.latest(Instant::now()).value(&What::Temperature("cpu-thermal".into()), Instant::now()).is_some());
}

#[test]
fn a_failing_source_is_told_of_once_its_reading_ages_and_it_comes_back() {
    let (source, answer, asked) = told("cpu-thermal");
    let mut poll = Poll::start(vec![source], Duration::ZERO);
    answer.send(Ok(50.0)).unwrap();
    (0..6).for_each(|_| answer.send(Err(absent())).unwrap());
    wait(&asked, 8);
    let latest = poll.latest(Instant::now());
    let later = Instant::now() + Duration::from_secs(7);
    assert_eq!(latest.notices, ["cpu-thermal: gone: not there"]);
    assert!(latest.value(&What::Temperature("cpu-thermal".into()), later).unwrap().1 >= 7.0);
    (0..GOOD).for_each(|_| answer.send(Ok(51.0)).unwrap());
    wait(&asked, GOOD as usize);
    assert_eq!(poll.latest(Instant::now()).notices, ["cpu-thermal is back"]);
}

#[test]
fn every_other_answer_missing_is_no_news() {
    let (source, answer, asked) = told("cpu-thermal");
    let mut poll = Poll::start(vec![source], Duration::ZERO);
    for _ in 0..10 {
        answer.send(Err(absent())).unwrap();
        answer.send(Ok(50.0)).unwrap();
    }
    wait(&asked, 21);
    assert!(poll.latest(Instant::now()).notices.is_empty());
}

#[test]
fn a_source_without_permission_is_told_of_at_once() {
    let (source, answer, asked) = told("rapl");
    let mut poll = Poll::start(vec![source], Duration::ZERO);
    answer.send(Err(Miss::Denied { path: "energy_uj".into() })).unwrap();
    wait(&asked, 2);
    let notices = poll.latest(Instant::now()).notices;
    assert!(notices.len() == 1 && notices[0].starts_with("rapl: energy_uj: no permission"), "{notices:?}");
}

#[test]
fn a_sleep_makes_all_readings_old() {
    let (source, answer, asked) = told("cpu-thermal");
    let mut poll = Poll::start(vec![source], Duration::ZERO);
    answer.send(Ok(80.0)).unwrap();
    wait(&asked, 2);
    assert_eq!(poll.latest(Instant::now()).slept, None);
    let hour = Duration::from_secs(3600);
    let later = poll.asleep + hour;
    let latest = poll.latest_at(Instant::now(), later);
    assert_eq!((latest.slept, latest.readings.len()), (Some(hour), 0));
    assert_eq!(latest.notices, ["the machine was asleep for 3600 s; its sensors are read anew"]);
    assert_eq!(poll.latest_at(Instant::now(), later).slept, None, "said once");
}

/// Readings straight into the shared state, at chosen times.
fn kept(readings: &[(What, f64, f64)]) -> Latest {
    kept_readings(readings.iter().map(|(what, value, second)| (Reading::new(what.clone(), *value, "test"), *second)))
}

fn kept_readings(readings: impl Iterator<Item = (Reading, f64)>) -> Latest {
    let poll = Poll::start(Vec::new(), EVERY);
    let start = Instant::now();
    let mut shared = lock(&poll.shared);
    for (reading, second) in readings {
        shared.keep(reading, start + Duration::from_secs_f64(second));
    }
    shared.latest.clone()
}

#[test]
fn watts_become_joules_by_the_trapezoid_and_a_gap_counts_nothing() {
    let watts = |w, second| (What::Power("pmic".into()), w, second);
    let joules = |readings: &[_]| kept(readings).readings[&What::Energy("pmic".into())].0.value;
    assert_eq!(joules(&[watts(4.0, 0.0)]), 0.0);
    assert_eq!(joules(&[watts(4.0, 0.0), watts(6.0, 1.0), watts(6.0, 2.0)]), 11.0);
    assert_eq!(joules(&[watts(4.0, 0.0), watts(4.0, 1.0), watts(4.0, 100.0), watts(4.0, 101.0)]), 8.0);
    let counter = (What::Energy("pmic".into()), 77.0, 1.0);
    assert_eq!(joules(&[watts(4.0, 0.0), watts(6.0, 1.0), counter]), 77.0, "a meter's own counter goes before");
}

#[test]
fn what_is_shown_only_is_asked_rarely_unless_somebody_waits() {
    let paces = |start: fn(Vec<Box<dyn Sensor>>) -> Poll| {
        let aside = |what| {
            let (_, answers) = mpsc::channel();
            let (asked, _) = mpsc::channel();
            Box::new(Aside(Told { what, answers, asked })) as Box<dyn Sensor>
        };
        let poll = start(vec![aside(What::Room), told("cpu-thermal").0]);
        let seats = &lock(&poll.shared).seats;
        [seats[0].every, seats[1].every]
    };
    assert_eq!(paces(Poll::start_lasting), [ASIDE, EVERY]);
    assert_eq!(paces(Poll::start_metering), [ASIDE, EVERY]);
    assert_eq!(paces(|sources| Poll::start(sources, METERING)), [METERING; 2]);
}

#[test]
fn a_card_whose_temperature_stays_while_the_processors_work_is_not_stuck() {
    let card = What::Temperature("nvidia0".into());
    let busy = |s: u32| Reading::new(What::Busy, f64::from(u8::from(s > 60)), "test");
    let still = |_| Reading { aside: true, ..Reading::new(card.clone(), 31.0, "test") };
    let readings = (0..400).flat_map(|s| [busy(s), still(s)].map(|reading| (reading, f64::from(s))));
    assert_eq!(kept_readings(readings).notices, [""; 0]);
}

#[test]
fn a_stuck_thermometer_ages_is_said_once_and_recovers() {
    let zone = What::Temperature("cpu-thermal".into());
    let mut readings = Vec::new();
    for second in 0..400 {
        readings.push((What::Busy, f64::from(u8::from(second > 60)), f64::from(second)));
        readings.push((zone.clone(), if second < 390 { 47.0 } else { 60.0 }, f64::from(second)));
    }
    let latest = kept(&readings[..780]);
    let aged = latest.readings[&zone].1;
    assert!(latest.readings[&What::Busy].1 - aged > Duration::from_secs(60));
    assert_eq!(latest.notices, ["cpu-thermal has read 47.0 °C for minutes while the load changed: it counts as stuck"]);
    let latest = kept(&readings);
    assert_eq!(latest.readings[&zone].0.value, 60.0);
    assert_eq!(latest.notices[1..], ["cpu-thermal moves again"]);
}

/// From a source's answer, once it is taken in, to its next question.
fn gap(poll: &Poll) -> Duration {
    let until = Instant::now() + PATIENCE;
    loop {
        let shared = lock(&poll.shared);
        // Back in its seat, it is due again.
        if shared.seats[0].source.is_some() && shared.seats[0].due > Instant::now() {
            let (_, at) = shared.latest.readings[&What::Temperature("cpu-thermal".into())];
            return shared.seats[0].due - at;
        }
        drop(shared);
        assert!(Instant::now() < until, "the answer is taken in");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_source_is_asked_no_more_often_than_the_pace_and_at_once_when_it_quickens() {
    let (source, answer, asked) = told("cpu-thermal");
    let poll = Poll::start(vec![source], EVERY);
    let hour = Duration::from_secs(3600);
    let gap = |pace| {
        poll.pace(pace);
        wait(&asked, 1);
        answer.send(Ok(40.0)).unwrap();
        gap(&poll)
    };
    // No hour passes before the last question.
    assert_eq!([gap(Duration::ZERO), gap(hour), gap(2 * EVERY)], [EVERY, hour, 2 * EVERY]);
}

#[test]
fn what_tells_of_work_is_asked_rarely_while_nothing_works_and_at_once_when_something_does() {
    let (source, answer, asked) = told_of(What::Busy);
    let poll = Poll::start(vec![source], Duration::ZERO);
    let hour = Duration::from_secs(3600);
    poll.pace(hour);
    wait(&asked, 1);
    answer.send(Ok(1.0)).unwrap();
    let until = Instant::now() + PATIENCE;
    while lock(&poll.shared).seats[0].due < Instant::now() + 2 * hour {
        assert!(Instant::now() < until, "the answer is taken in");
        std::thread::sleep(Duration::from_millis(1));
    }
    poll.pace(Duration::ZERO);
    wait(&asked, 1);
}

#[test]
fn a_source_that_fails_is_asked_as_often_as_ever_whatever_the_pace() {
    let (source, answer, asked) = told("cpu-thermal");
    let mut poll = Poll::start(vec![source], Duration::ZERO);
    poll.pace(Duration::from_secs(3600));
    for _ in 0..MISSES {
        wait(&asked, 1);
        answer.send(Err(absent())).unwrap();
    }
    let until = Instant::now() + PATIENCE;
    while poll.latest(Instant::now()).notices != ["cpu-thermal: gone: not there"] {
        assert!(Instant::now() < until, "three misses are told of");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_falls_due_within_a_moment_is_asked_in_the_same_wake() {
    let poll = Poll::start(Vec::new(), EVERY);
    let now = Instant::now();
    let seat = |due| Seat::new(EVERY, told("cpu-thermal").0, due);
    let mut shared = lock(&poll.shared);
    shared.seats = vec![seat(now), seat(now + TOGETHER), seat(now + 2 * TOGETHER)];
    let asked = |answer: Result<(usize, _), Duration>| answer.map(|(index, _)| index);
    assert_eq!([(); 3].map(|()| asked(shared.next(now))), [Ok(0), Ok(1), Err(2 * TOGETHER)]);
}
