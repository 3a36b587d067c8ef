/**
 * A hostile guest: it makes 100,000 hypercalls and many MSR accesses with random values and pages, and
 * looks itself for damage (`tests/guests/storm.asm`). The debugger's side answers as wildly.
 */
import { assert, assertEquals } from "@std/assert";
import { loadImage } from "../../core/loaders/load_image.ts";
import { stormGuest } from "../guests/built/storm_guest.ts";
import { backends } from "./backends.ts";
import { ProbeGuest, RAM } from "./_probe.ts";

/** Every call is an exit on KVM, and its guest may be an emulated one itself. */
const CALLS = { interp: 100_000, kvm: 10_000 };
/** The same calls in every run. */
const SEED = 0x1234_5678_9abc_def0n;

// Words that `storm.asm` shares with the outside.
const AT_CALLS = 0x30_0000;
const AT_SEED = 0x30_0008;
const AT_RAM_END = 0x30_0010;
const AT_GUARD_SKIP = 0x30_0018;
const AT_MSRS = 0x30_0020;
const AT_FAULTS = 0x30_0024;
const AT_BAD_ADDRESS = 0x30_0028;
const AT_BAD_CALL = 0x30_0030;
const AT_ODD_RESULTS = 0x30_0038;
const AT_CALL_CODE = 0x30_0040;
const AT_STATUSES = 0x30_1000;
const CALL_CODE = 0x3f_0000;
const ARENA = 0x40_0000;
const PAGE = 4096;
const PAIRS = 64;
const GUARD = 0x5a5a_a5a5_5a5a_a5a5n;
/** Statuses that a guest that has identified itself can get. */
const KNOWN = [
  0x00,
  0x02,
  0x03,
  0x04,
  0x05,
  0x0b,
  0x12,
  0x13,
  0x14,
  0x1b,
  0x1c,
];
/** Lengths of answers: in a page, at its end, more than one, all that UDP has. */
const ANSWERS = [0, 1, 60, 1400, 4046, 4047, 4088, 4096, 4097, 65_507];

for (const backend of backends) {
  const calls = backend.name === "interp" ? CALLS.interp : CALLS.kvm;
  for (const profile of ["hyperv", "kvm"] as const) {
    Deno.test(`${backend.name}: ${calls} random hypercalls do no harm, ${profile}`, async () => {
      const guest = new ProbeGuest(backend, { profile, syndbg: "hypercall" });
      const { memory, machine, peer } = guest;
      let received = 0;
      peer.onActivity = () => {
        const data = peer.receive()!;
        received++;
        for (let n = 0; n < received % 3; n++) {
          peer.send(
            new Uint8Array(ANSWERS[received * 7 % ANSWERS.length]!)
              .fill(data.length),
          );
        }
      };
      loadImage(memory, machine.vcpus[0]!, stormGuest());
      memory.fill(AT_CALLS, 0x48);
      memory.fill(AT_STATUSES, 0x400);
      memory.writeU32(AT_CALLS, calls);
      if (guest.callCode !== undefined) {
        memory.write(CALL_CODE, guest.callCode);
        memory.writeU32(AT_CALL_CODE, CALL_CODE);
      }
      memory.writeU64(AT_SEED, SEED);
      memory.writeU64(AT_RAM_END, BigInt(RAM));
      // QEMU's outputs of up to 24 bytes go where the guest says, also over a page's end.
      const skip = profile === "kvm" ? 24 : 0;
      memory.writeU32(AT_GUARD_SKIP, skip);
      const { kind } = await machine.run({ timeout: 60_000 });
      const { view } = memory;
      const word = (at: number): number => view.getUint32(at, true);
      const bad = view.getBigUint64(AT_BAD_ADDRESS, true).toString(16);
      const call = view.getBigUint64(AT_BAD_CALL, true).toString(16);
      assertEquals(kind, "halted", `damage at ${bad} by call ${call}`);
      assertEquals(word(AT_CALLS), 0);
      assertEquals(word(AT_ODD_RESULTS), 0);
      for (let pair = 0; pair < PAIRS; pair++) {
        const guard = ARENA + (2 * pair + 1) * PAGE;
        for (let at = guard + skip; at < guard + PAGE; at += 8) {
          assertEquals(view.getBigUint64(at, true), GUARD);
        }
      }
      // What was tried: most kinds of success and failure must have been met.
      const counts = Array.from(
        { length: 256 },
        (_, status) => word(AT_STATUSES + 4 * status),
      );
      const met = counts.flatMap((count, status) => count > 0 ? [status] : []);
      assertEquals(met.filter((status) => !KNOWN.includes(status)), []);
      for (const status of [0x00, 0x02, 0x03, 0x05]) {
        assert(
          counts[status]! > calls / 200,
          `status ${status}: ${counts[status]}`,
        );
      }
      assert(word(AT_MSRS) > calls / 5, `MSRs ${word(AT_MSRS)}`);
      assert(word(AT_FAULTS) > calls / 1000, `faults ${word(AT_FAULTS)}`);
      assert(received > calls / 100, `packets ${received}`);
      guest.close();
    });
  }
}
