use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, Strategy, any, prop_assert, prop_oneof, proptest};
use proptest::test_runner::RngSeed;

use super::*;

const EPOCH: u64 = 1000;

fn at(seconds: u64) -> Boottime {
    Boottime(seconds * 1000)
}

fn claim() -> Claim {
    Claim::new(Identity::new(Some("me".to_owned()), 1))
}

fn mine() -> String {
    claim().me.holder()
}

fn seen(holder: Option<&str>, epoch: u64, since: u64) -> Sighting {
    Sighting { record: Some(Record { version: 7, holder: holder.map(str::to_owned), epoch }), since: at(since) }
}

fn none(since: u64) -> Sighting {
    Sighting { record: None, since: at(since) }
}

/// One that took the Lease at 100 s.
fn holding() -> Claim {
    let mut claim = claim();
    claim.wrote(&Write { over: None, epoch: EPOCH, takes: true }, at(100), Outcome::Written, at(100));
    claim
}

fn next(claim: &Claim, seen: &Sighting, now: u64) -> Action {
    claim.next(seen, Company::default, EPOCH, at(now))
}

fn take(over: Option<u64>, epoch: u64) -> Action {
    Action::Write(Write { over, epoch, takes: true })
}

fn renew() -> Action {
    Action::Write(Write { over: Some(7), epoch: EPOCH, takes: false })
}

fn wait(until: u64) -> Action {
    Action::Wait { until: at(until) }
}

#[test]
fn what_to_do_follows_from_the_lease_and_the_time() {
    let other = || seen(Some("other_2"), 5, 100);
    for (situation, claim, seen, now, action) in [
        ("there is none", claim(), none(100), 100, take(None, EPOCH)),
        ("it was given back", claim(), seen(None, 5, 100), 100, take(Some(7), EPOCH)),
        ("epochs are ahead of the clock", claim(), seen(None, 9999, 100), 100, take(Some(7), 10_000)),
        ("another has it", claim(), other(), 100, wait(115)),
        ("another does not renew it", claim(), other(), 115, take(Some(7), EPOCH)),
        ("an earlier process of this pod had it", claim(), seen(Some("me_2"), 5, 100), 100, take(Some(7), EPOCH)),
        ("a pod had it whose name begins like ours", claim(), seen(Some("me-too_2"), 5, 100), 100, wait(115)),
        ("we have it without knowing", claim(), seen(Some(&mine()), EPOCH, 100), 100, take(Some(7), EPOCH + 1)),
        ("it is ours and fresh", holding(), seen(Some(&mine()), EPOCH, 100), 104, wait(105)),
        ("it is ours and to be renewed", holding(), seen(Some(&mine()), EPOCH, 100), 105, renew()),
        ("it is ours and nobody renewed it for long", holding(), seen(Some(&mine()), EPOCH, 100), 500, renew()),
        ("somebody has deleted ours", holding(), none(103), 105, Action::Write(Write { over: None, epoch: EPOCH, takes: false })),
        ("another has taken ours", holding(), other(), 101, Action::Lose),
    ] {
        assert_eq!(next(&claim, &seen, now), action, "{situation}");
    }
}

#[test]
fn who_has_much_leaves_the_next_to_others_for_a_moment() {
    let company = Company { mine: 3, is_shared: true };
    let reserved = |company: Company| claim().next(&none(100), || company, EPOCH, at(100));
    assert_eq!(reserved(company), Action::Wait { until: at(100) + Duration::from_millis(300) });
    assert_eq!(reserved(Company { mine: 500, ..company }), wait(101));
    assert_eq!(reserved(Company { is_shared: false, ..company }), take(None, EPOCH), "there is nobody to leave it to");
}

#[test]
fn a_holder_is_sure_for_ten_seconds_from_the_begin_of_a_renewal() {
    let mut claim = holding();
    assert_eq!(claim.proven_until(), at(110));
    claim.wrote(&Write { over: Some(7), epoch: EPOCH, takes: false }, at(105), Outcome::Written, at(108));
    assert_eq!(claim.proven_until(), at(115));
}

#[test]
fn a_holder_that_tries_in_vain_goes_on_as_nobody_can_take_it_either() {
    let mut claim = holding();
    let write = Write { over: Some(7), epoch: EPOCH, takes: false };
    for second in (105..200).step_by(4) {
        claim.wrote(&write, at(second), Outcome::Unanswered, at(second + 3));
        assert_eq!(claim.proven_until(), at(second + 10));
        assert_eq!(next(&claim, &seen(Some(&mine()), EPOCH, 100), second + 3), wait(second + 4));
    }
    claim.wrote(&write, at(205), Outcome::Conflict, at(205));
    assert_eq!(claim.epoch(), None, "another had the time to take it");
}

#[test]
fn a_holder_that_was_stopped_is_not_sure_until_it_has_renewed() {
    let mut claim = holding();
    let write = Write { over: Some(7), epoch: EPOCH, takes: false };
    claim.wrote(&write, at(160), Outcome::Unanswered, at(163));
    assert!(claim.proven_until() < at(163) && claim.epoch().is_some());
    claim.wrote(&write, at(164), Outcome::Written, at(164));
    assert_eq!(claim.proven_until(), at(174), "nobody has taken it meanwhile");
}

#[test]
fn a_conflict_with_a_write_of_our_own_that_was_not_confirmed_loses_nothing() {
    let mut claim = holding();
    let write = Write { over: Some(7), epoch: EPOCH, takes: false };
    claim.wrote(&write, at(105), Outcome::Unanswered, at(108));
    claim.wrote(&write, at(109), Outcome::Conflict, at(109));
    assert_eq!(claim.epoch(), Some(EPOCH));
}

#[test]
fn time_out_of_sight_does_not_count() {
    let mut sighting = seen(Some("other_2"), 5, 100);
    sighting.lose_sight(at(160));
    assert_eq!(next(&claim(), &sighting, 160), wait(175));
}

/// What happens to one of the operators of a simulation.
#[derive(Clone, Debug)]
enum Fault {
    /// It is stopped, and does not notice.
    Stop,
    /// It does not reach the API server.
    Cut,
    /// What it writes is stored, and it does not hear so.
    LoseAnswers,
}

#[derive(Clone, Debug)]
struct Happening {
    operator: usize,
    fault: Fault,
    from: u64,
    steps: u64,
}

const STEP_MS: u64 = 250;
const OPERATORS: usize = 3;
/// Faults begin and end before; afterwards there is peace.
const FAULTS_END: u64 = 600;
const END: u64 = FAULTS_END + 200;

struct Operator {
    claim: Claim,
    sighting: Sighting,
    /// What its clock shows at 0, and how it runs, in percent.
    offset: u64,
    rate: u64,
}

impl Operator {
    fn clock(&self, step: u64) -> Boottime {
        Boottime(self.offset + step * STEP_MS * self.rate / 100)
    }
}

fn happening() -> impl Strategy<Value = Happening> {
    let fault = prop_oneof![
        any::<()>().prop_map(|()| Fault::Stop),
        any::<()>().prop_map(|()| Fault::Cut),
        any::<()>().prop_map(|()| Fault::LoseAnswers),
    ];
    (0..OPERATORS, fault, 0..FAULTS_END, 1..160_u64).prop_map(|(operator, fault, from, steps)| {
        let steps = steps.min(FAULTS_END - from);
        Happening { operator, fault, from, steps }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..ProptestConfig::default() })]

    /// Clocks differ and run up to a sixth apart either way.
    #[test]
    fn nobody_serves_beside_another_and_somebody_does_in_the_end(
        happenings in vec(happening(), 0..12),
        clocks in vec((0..1_000_000_000_u64, 86..117_u64), OPERATORS),
    ) {
        let mut stored: Option<Record> = None;
        let (mut version, mut highest) = (0, 0);
        let mut operators: Vec<Operator> = clocks.iter().enumerate().map(|(number, &(offset, rate))| Operator {
            claim: Claim::new(Identity::new(Some(format!("pod-{number}")), 1)),
            sighting: Sighting { record: None, since: Boottime(offset) },
            offset,
            rate,
        }).collect();
        for step in 0..END {
            let hit = |number: usize, kind: fn(&Fault) -> bool| happenings.iter().any(|one| {
                one.operator == number && kind(&one.fault) && (one.from..one.from + one.steps).contains(&step)
            });
            for (number, operator) in operators.iter_mut().enumerate() {
                let now = operator.clock(step);
                if hit(number, |fault| matches!(fault, Fault::Stop)) {
                    continue;
                }
                let is_cut = hit(number, |fault| matches!(fault, Fault::Cut));
                if is_cut {
                    operator.sighting.lose_sight(now);
                } else {
                    operator.sighting.see(stored.clone(), now);
                }
                match operator.claim.next(&operator.sighting, Company::default, 1, now) {
                    Action::Wait { .. } => {}
                    Action::Lose => operator.claim.lose(),
                    Action::Write(write) => {
                        let is_current = write.over == stored.as_ref().map(|record| record.version);
                        if !is_cut && is_current {
                            if write.takes {
                                prop_assert!(write.epoch > highest, "epoch {} after {highest}", write.epoch);
                                highest = write.epoch;
                            }
                            version += 1;
                            stored = Some(Record { version, holder: Some(operator.claim.me.holder()), epoch: write.epoch });
                        }
                        let outcome = match () {
                            () if is_cut || hit(number, |fault| matches!(fault, Fault::LoseAnswers)) => Outcome::Unanswered,
                            () if is_current => Outcome::Written,
                            () => Outcome::Conflict,
                        };
                        operator.claim.wrote(&write, now, outcome, now);
                    }
                }
                let is_mine = stored.as_ref().and_then(|record| record.holder.as_deref()) == Some(&*operator.claim.me.holder());
                prop_assert!(is_cut || is_mine || operator.claim.epoch().is_none(), "{number} serves at {step} although it sees another");
            }
            // One that is stopped says nothing. One that tries in vain goes on without a proof.
            let speaks = |number: &usize| {
                let operator = &operators[*number];
                let proven_until = operator.claim.held.map(|held| held.renewed_at + RENEW_DEADLINE);
                !hit(*number, |fault| matches!(fault, Fault::Stop)) && proven_until.is_some_and(|until| operator.clock(step) < until)
            };
            let speaking: Vec<usize> = (0..OPERATORS).filter(speaks).collect();
            prop_assert!(speaking.len() <= 1, "{speaking:?} serve at {step}");
            prop_assert!(step + 1 < END || speaking.len() == 1, "nobody serves");
        }
    }
}
