//! The simulator against published facts, and its own promises: repeatable, quick, and honest about what it cannot meet.

use super::*;

/// 45 min from cold: (seconds to 80 °C, mean junction and clock of the last 300 s, last rate over peak, mean input W of the last 300 s).
fn settle(model: &Model, work: Work, ambient: f32) -> (Option<f32>, f32, f32, f32, f32) {
    let (cores, max) = (model.soc.cores, model.soc.max_mhz());
    let mut plant = Plant::new(model.clone(), ambient, 1);
    let ticks = (2700.0 / TICK_S) as usize;
    let last = (300.0 / TICK_S) as usize;
    let (mut t80, mut t, mut f, mut rate, mut w) = (None, 0.0, 0.0, 0.0, 0.0);
    for i in 0..ticks {
        let done = plant.tick(work, cores, max);
        if plant.junction_c() >= 80.0 && t80.is_none() {
            t80 = Some(i as f32 * TICK_S);
        }
        if i >= ticks - last {
            t += plant.junction_c() as f64;
            f += plant.clock_mhz() as f64;
            rate += done.rate as f64;
            w += done.input_w as f64;
        }
    }
    let mean = |x: f64| (x / last as f64) as f32;
    (t80, mean(t), mean(f), mean(rate) / model.peak(work), mean(w))
}

#[test]
fn every_published_anchor_is_met() {
    let mut missed = Vec::new();
    for profile in Profile::all() {
        for a in &profile.anchor {
            let mut model = Model::of(&profile, &a.cooling).expect("anchors name a cooling");
            if let Some(mhz) = a.max_mhz {
                model = model.with_max_mhz(mhz);
            }
            let work = match a.load.as_str() {
                "stress" => Work::Stress,
                "prefill" => Work::Prefill,
                "decode" => Work::Decode,
                other => panic!("no load `{other}`"),
            };
            let (t80, t, f, rel, w) = settle(&model, work, a.ambient_c.unwrap_or(22.0));
            let mut check = |what: &str, value: Option<f32>, range: Option<[f32; 2]>| {
                if let Some([lo, hi]) = range
                    && !value.is_some_and(|v| v >= lo * 0.9999 && v <= hi * 1.0001)
                {
                    missed.push(format!("{} {} {what}: {value:?}, published {lo}–{hi}", model.name, a.load));
                }
            };
            check("t80_s", t80, a.t80_s);
            check("settle_c", Some(t), a.settle_c);
            check("mean_mhz", Some(f), a.mean_mhz);
            check("rel", Some(rel), a.rel);
            check("input_w", Some(w), a.input_w);
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn the_same_seed_repeats_and_another_differs() {
    let run = |seed| {
        let mut plant = Plant::new(Model::named("rk3588-bare-stepwise").unwrap(), 30.0, seed);
        (0..6000).map(|_| plant.tick(Work::Decode, 4, 9999.0).rate as f64).sum::<f64>()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn a_failed_fan_and_a_closed_lid_make_it_hotter() {
    let after = |change: fn(&mut Plant)| {
        let mut plant = Plant::new(Model::named("pi5-active").unwrap(), 30.0, 1);
        change(&mut plant);
        (0..12_000).for_each(|_| {
            plant.tick(Work::Prefill, 4, 9999.0);
        });
        plant.junction_c()
    };
    let well = after(|_| ());
    assert!(after(|p| p.fail_fan(true)) > well + 8.0);
    assert!(after(|p| p.close_lid(true)) > well + 3.0);
    assert!(after(|p| p.set_ambient(40.0)) > well + 3.0);
}

#[test]
fn draws_differ_from_each_other_and_seed_zero_is_the_board_as_written() {
    let model = Model::named("pi4-bare").unwrap();
    assert_eq!(model.draw(0).cooling.rba, model.cooling.rba);
    assert_ne!(model.draw(1).cooling.rba, model.draw(2).cooling.rba);
    assert_eq!(model.draw(3).soc.c_dyn, model.draw(3).soc.c_dyn);
}
