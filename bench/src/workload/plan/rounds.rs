//! A plan of which one part is carried out again and again.

use super::{Phase, Plan};

impl Plan {
    /// The same with everything that is no preparation repeated: "steady" becomes "steady 1", "steady 2", …
    pub fn in_rounds(&self, rounds: u32) -> Self {
        let (mut phases, round): (Vec<Phase>, Vec<Phase>) =
            self.phases.iter().cloned().partition(|phase| phase.preparation);
        for number in 1..=rounds {
            let numbered =
                |phase: &Phase| Phase { name: format!("{} {number}", phase.name), ..phase.clone() };
            phases.extend(round.iter().map(numbered));
        }
        Self { phases, ..self.clone() }
    }

    /// Seconds that one round takes.
    pub fn round_s(&self) -> f64 {
        self.phases.iter().filter(|phase| !phase.preparation).map(|phase| phase.seconds).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn what_is_no_preparation_is_repeated_in_its_order() {
        let text = "name='p'\nabout=''\npopulation={users=2}\n\
            phase=[{name='in',seconds=9,preparation=true},{name='a',seconds=2},{name='b',seconds=3}]";
        let plan = Plan::parse(text, Path::new("p")).expect("a plan");
        assert!((plan.round_s() - 5.0).abs() < 1e-9);
        let rounds = plan.in_rounds(2);
        let names: Vec<&str> = rounds.phases.iter().map(|phase| phase.name.as_str()).collect();
        assert_eq!(names, ["in", "a 1", "b 1", "a 2", "b 2"]);
        rounds.check().expect("as good as the one it was made of");
        assert_eq!(rounds.population, plan.population);
    }
}
