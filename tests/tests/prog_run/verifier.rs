//! The verifier's work for each program, compared with the limit at which the kernel gives up.
#![expect(unsafe_code, reason = "bpf(2) itself, for the verifier's log")]

use std::os::fd::{AsFd as _, AsRawFd as _};

use super::bench::{OBJECT, on_bench, opened, prepared};
use aya::Ebpf;
use aya_obj::{
    Object, ProgramSection,
    generated::{bpf_attr, bpf_cmd, bpf_insn, bpf_prog_type},
};
use nix::{errno::Errno, libc};

/// Largest number of instructions. The kernel gives up at a million, and a quarter of that leaves room for
/// kernels that prune less.
const BOUND: u32 = 250_000;
/// BPF_LOG_STATS (linux/bpf_verifier.h): the log has only the figures at its end.
const LOG_STATS: u32 = 4;

#[test]
fn the_verifier_is_done_in_good_time() {
    on_bench(|_| {
        for prepared in prepared() {
            println!(
                "{:15} {:>8} {:>9} {:>7} {:>7} {:>7} {:>7}",
                if prepared.layout.is_typed == 1 { "typed" } else { "probed" },
                "in all",
                "looked at",
                "states",
                "peak",
                "stack",
                "µs"
            );
            verify(&relocated(&mut opened(&prepared), &prepared.object));
        }
    });
}

fn verify(object: &Object) {
    let mut programs: Vec<_> = object.programs.iter().collect();
    programs.sort_by_key(|(name, _)| *name);
    for (name, program) in programs {
        let code = &object.functions[&program.function_key()].instructions;
        let kind = match program.section {
            ProgramSection::SchedClassifier => bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS,
            ProgramSection::Xdp { .. } => bpf_prog_type::BPF_PROG_TYPE_XDP,
            ref other => panic!("{name} is {other:?}"),
        };
        let log = verified(kind, code).unwrap_or_else(|errno| panic!("{name}: {errno}"));
        let figure = |name| figure(&log, name);
        let stack = log.lines().find_map(|line| line.strip_prefix("stack depth "));
        let looked_at = figure("processed").expect("every kernel says how many");
        println!(
            "{name:15} {:8} {looked_at:9} {:>7} {:>7} {:>7} {:>7}",
            code.len(),
            shown(figure("total_states")),
            shown(figure("peak_states")),
            stack.unwrap_or("?"),
            shown(log.lines().find_map(|line| {
                line.strip_prefix("verification time ")?.split(' ').next()?.parse().ok()
            })),
        );
        assert!(looked_at <= BOUND, "{name}: {looked_at} > {BOUND}");
    }
}

/// The object's code with the file descriptors of the loaded maps in it. Aya does not give away the log of a
/// program that loads, so this test loads the programs once more, without aya.
fn relocated(loaded: &mut Ebpf, object: &[u8]) -> Object {
    let mut object = Object::parse(object).expect("aya has read it");
    let maps: Vec<_> = object.maps.iter().map(|(name, map)| (name.clone(), map.clone())).collect();
    let fds = maps.iter().map(|(name, map)| {
        let data = loaded.map(name).unwrap_or_else(|| panic!("aya has made {name}"));
        (name.as_str(), fd(data), map)
    });
    let sections = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_maps(fds, &sections).expect("aya has done it");
    object.relocate_calls(&sections).expect("aya has done it");
    object
}

fn fd(map: &aya::maps::Map) -> i32 {
    use aya::maps::Map;
    let data = match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data)
        | Map::PerCpuHashMap(data)
        | Map::LruHashMap(data) => data,
        other => panic!("what is {other:?}?"),
    };
    data.fd().as_fd().as_raw_fd()
}

/// Has the kernel verify the code, and returns the kernel's log. The program is unloaded at once.
fn verified(kind: bpf_prog_type, code: &[bpf_insn]) -> nix::Result<String> {
    let mut log = vec![0u8; 4096];
    let licence = c"Dual MIT/GPL";
    // SAFETY: all zero bytes are a value of this plain C union.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: any bytes are a value of this field of the union.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = kind as u32;
    load.insns = code.as_ptr() as u64;
    load.insn_cnt = code.len() as u32;
    load.license = licence.as_ptr() as u64;
    load.log_level = LOG_STATS;
    load.log_buf = log.as_mut_ptr() as u64;
    load.log_size = log.len() as u32;
    let command = bpf_cmd::BPF_PROG_LOAD as libc::c_int;
    // SAFETY: the union is the kernel's own; its pointers are to buffers of the lengths that are said,
    // which outlive the call.
    let loaded =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attr, size_of::<bpf_attr>()) };
    let fd = Errno::result(loaded)?;
    nix::unistd::close(fd as i32)?;
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    Ok(String::from_utf8_lossy(&log[..end]).into_owned())
}

/// The number that follows this word in the log.
fn figure(log: &str, word: &str) -> Option<u32> {
    let mut words = log.split_ascii_whitespace();
    words.find(|found| *found == word)?;
    words.next()?.parse().ok()
}

fn shown(figure: Option<u32>) -> String {
    figure.map_or_else(|| "?".into(), |figure| figure.to_string())
}

/// The tests here use the programs that are released, which must not log.
#[test]
fn the_released_programs_log_nothing() {
    assert!(!OBJECT.windows(7).any(|name| name == b"AYA_LOG"), "they have a log's map or level");
}
