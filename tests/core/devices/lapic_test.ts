import { assert, assertEquals } from "@std/assert";
import {
  ApicRegister as R,
  MSR_APIC_BASE,
  MSR_TSC_DEADLINE,
} from "../../../core/devices/apic_registers.ts";
import { ApicBus } from "../../../core/devices/apic_bus.ts";
import { LocalApic } from "../../../core/devices/lapic.ts";

const PAGE = 0xfee0_0000;
const MASKED = 0x1_0000;
const ASSERT = 0x4000;
const LOGICAL = 0x800;
const NMI = 4 << 8, INIT = 5 << 8, STARTUP = 6 << 8, EXTINT = 7 << 8;
const LOWEST = 1 << 8;
const X2APIC = 0xc00, XAPIC = 0x800;

/** Local APICs on a bus, and what they tell. */
class Bench {
  time = 0;
  readonly bus: ApicBus = new ApicBus();
  /** INTR of each. */
  readonly lines: boolean[] = [];
  /** CR8 of each. */
  readonly priorities: number[] = [];
  /** What else was told, such as `1 init`. */
  readonly told: string[] = [];

  constructor(count = 1) {
    const clock = {
      now: () => this.time,
      readTsc: () => BigInt(Math.floor(this.time)) * 2n,
      tscFrequency: 2_000_000_000,
    };
    for (let id = 0; id < count; id++) {
      const tell = (text: string): void => {
        this.told.push(`${id} ${text}`);
      };
      const apic = new LocalApic(id, this.bus, clock, {
        interrupt: (asserted) => this.lines[id] = asserted,
        taskPriority: (priority) => this.priorities[id] = priority,
        nmi: () => tell("nmi"),
        init: () => tell("init"),
        startup: (vector) => tell(`startup ${vector}`),
        endOfInterrupt: (vector, level) =>
          tell(`end ${vector}${level ? " level" : ""}`),
        timerChanged: () => {},
      });
      this.bus.apics.push(apic);
      this.write(R.Spurious, 0x1ff, id);
    }
  }

  apic(id = 0): LocalApic {
    return this.bus.apics[id]!;
  }

  read(offset: number, id = 0): number {
    const data = new Uint8Array(4);
    this.apic(id).readMmio(PAGE + offset, data);
    return new DataView(data.buffer).getUint32(0, true);
  }

  write(offset: number, value: number, id = 0): void {
    const data = new Uint8Array(4);
    new DataView(data.buffer).setUint32(0, value, true);
    this.apic(id).writeMmio(PAGE + offset, data);
  }

  /** Sends an interrupt by ICR. */
  ipi(command: number, destination = 0, id = 0): void {
    this.write(R.CommandHigh, destination << 24, id);
    this.write(R.Command, command, id);
  }

  /** RDMSR: undefined is #GP. */
  rdmsr(index: number, id = 0): bigint | undefined {
    const value = new Uint32Array(2);
    return this.apic(id).readMsr(index, value)
      ? BigInt(value[1]!) << 32n | BigInt(value[0]!)
      : undefined;
  }

  /** WRMSR: false is #GP. */
  wrmsr(index: number, value: bigint, id = 0): boolean {
    return this.apic(id).writeMsr(
      index,
      Number(value & 0xffff_ffffn),
      Number(value >> 32n),
    );
  }

  x2apic(id = 0): void {
    const base = this.rdmsr(MSR_APIC_BASE, id)!;
    assert(this.wrmsr(MSR_APIC_BASE, base | BigInt(X2APIC), id));
  }

  /** Waits, and takes what interrupts: its vector, or undefined. */
  after(nanoseconds: number): number | undefined {
    this.time += nanoseconds;
    this.apic().update();
    return this.take();
  }

  take(id = 0): number | undefined {
    return this.lines[id] ? this.apic(id).acknowledge() : undefined;
  }
}

Deno.test("LocalApic is switched off by software after power-on, all local sources masked", () => {
  const bench = new Bench();
  bench.apic().reset();
  assertEquals(bench.read(R.Spurious), 0xff);
  assertEquals(bench.read(R.Version), 0x0005_0014);
  assertEquals(bench.read(R.DestinationFormat), 0xffff_ffff);
  for (let at: number = R.LvtTimer; at <= R.LvtError; at += 16) {
    assertEquals(bench.read(at), MASKED);
    bench.write(at, 0x40);
    assertEquals(bench.read(at), MASKED | 0x40);
  }
  assertEquals(bench.apic().request(0x40, false), false);
  assertEquals(bench.lines[0], false);
});

Deno.test("LocalApic takes interrupts by priority, and one class at a time", () => {
  const bench = new Bench();
  for (const vector of [0x31, 0x52, 0x51, 0x33]) {
    bench.apic().request(vector, false);
  }
  assertEquals(bench.take(), 0x52);
  assertEquals(bench.read(R.ProcessorPriority), 0x50);
  assertEquals(bench.lines[0], false);
  assertEquals(bench.read(R.Request + 0x20), 1 << 0x11);
  assertEquals(bench.read(R.InService + 0x20), 1 << 0x12);
  bench.apic().request(0x60, false);
  assertEquals(bench.take(), 0x60);
  for (const next of [undefined, 0x51, 0x33, 0x31, undefined]) {
    bench.write(R.EndOfInterrupt, 0);
    assertEquals(bench.take(), next);
  }
  assertEquals(bench.told, [
    "0 end 96",
    "0 end 82",
    "0 end 81",
    "0 end 51",
    "0 end 49",
  ]);
});

Deno.test("LocalApic takes a vector once however often it was requested", () => {
  const bench = new Bench();
  bench.apic().request(0x40, false);
  bench.apic().request(0x40, false);
  assertEquals([bench.take(), bench.take()], [0x40, undefined]);
});

Deno.test("LocalApic's task priority masks, and is CR8", () => {
  const bench = new Bench();
  bench.write(R.TaskPriority, 0x55);
  assertEquals(bench.priorities[0], 5);
  bench.apic().request(0x5f, false);
  assertEquals(bench.lines[0], false);
  assertEquals(bench.read(R.ProcessorPriority), 0x55);
  bench.apic().setTaskPriority(4);
  assertEquals(bench.read(R.TaskPriority), 0x40);
  assertEquals(bench.lines[0], true);
  // Masked again before it is taken.
  bench.apic().setTaskPriority(15);
  assertEquals(bench.lines[0], false);
  assertEquals(bench.apic().acknowledge(), -1);
});

Deno.test("LocalApic leaves a vector out of service if it ends by itself", () => {
  const bench = new Bench();
  bench.apic().request(0x40, false, true);
  assertEquals(bench.take(), 0x40);
  assertEquals(bench.read(R.InService + 0x20), 0);
  bench.apic().request(0x40, false);
  assertEquals(bench.take(), 0x40);
  assertEquals(bench.read(R.InService + 0x20), 1);
});

Deno.test("LocalApic tells the end of a level-triggered interrupt as such", () => {
  const bench = new Bench();
  bench.apic().request(0x40, true);
  assertEquals(bench.read(R.TriggerMode + 0x20), 1);
  bench.take();
  bench.write(R.EndOfInterrupt, 0);
  bench.apic().request(0x40, false);
  assertEquals(bench.read(R.TriggerMode + 0x20), 0);
  bench.take();
  bench.write(R.EndOfInterrupt, 0);
  bench.write(R.EndOfInterrupt, 0);
  assertEquals(bench.told, ["0 end 64 level", "0 end 64"]);
});

Deno.test("LocalApic's timer fires once, or again and again", () => {
  const bench = new Bench();
  bench.write(R.Divide, 0b1011); // by 1
  bench.write(R.LvtTimer, 0x40);
  bench.write(R.InitialCount, 1000);
  assertEquals(bench.read(R.CurrentCount), 1000);
  assertEquals(bench.after(400), undefined);
  assertEquals(bench.read(R.CurrentCount), 600);
  assertEquals(bench.apic().untilNext(), 600);
  assertEquals(bench.after(600), 0x40);
  assertEquals(bench.read(R.CurrentCount), 0);
  assertEquals(bench.apic().untilNext(), Infinity);

  bench.write(R.EndOfInterrupt, 0);
  bench.write(R.LvtTimer, 0x2_0041);
  bench.write(R.InitialCount, 1000);
  assertEquals(bench.after(1000), 0x41);
  bench.write(R.EndOfInterrupt, 0);
  // Three periods are one interrupt, and the next is on time.
  assertEquals(bench.after(3300), 0x41);
  bench.write(R.EndOfInterrupt, 0);
  assertEquals(bench.read(R.CurrentCount), 700);
  assertEquals(bench.apic().untilNext(), 700);
  bench.write(R.InitialCount, 0);
  assertEquals(bench.apic().untilNext(), Infinity);
});

Deno.test("LocalApic's timer counts as its divider says, and goes on when that changes", () => {
  const bench = new Bench();
  const dividers = [2, 4, 8, 16, 32, 64, 128, 1];
  dividers.forEach((divider, n) => {
    bench.write(R.Divide, (n & 3) | ((n & 4) << 1));
    bench.write(R.InitialCount, 10);
    assertEquals(bench.apic().untilNext(), 10 * divider);
  });
  bench.write(R.Divide, 0);
  bench.write(R.InitialCount, 100);
  bench.time += 100;
  bench.write(R.Divide, 1);
  assertEquals(bench.read(R.CurrentCount), 50);
  assertEquals(bench.apic().untilNext(), 200);
});

Deno.test("LocalApic's masked timer counts and does not interrupt", () => {
  const bench = new Bench();
  bench.write(R.LvtTimer, MASKED | 0x40);
  bench.write(R.InitialCount, 10);
  assertEquals(bench.after(1000), undefined);
  assertEquals(bench.read(R.CurrentCount), 0);
});

Deno.test("LocalApic's timer fires at a TSC deadline", () => {
  const bench = new Bench();
  // Without the mode it is not armed.
  assert(bench.wrmsr(MSR_TSC_DEADLINE, 5000n));
  assertEquals(bench.rdmsr(MSR_TSC_DEADLINE), 0n);
  bench.write(R.LvtTimer, 0x4_0040);
  assert(bench.wrmsr(MSR_TSC_DEADLINE, 5000n));
  assertEquals(bench.rdmsr(MSR_TSC_DEADLINE), 5000n);
  assertEquals(bench.apic().untilNext(), 2500);
  // The count registers have no part in it.
  bench.write(R.InitialCount, 7);
  assertEquals(bench.read(R.CurrentCount), 0);
  assertEquals(bench.after(2499), undefined);
  assertEquals(bench.after(1), 0x40);
  assertEquals(bench.rdmsr(MSR_TSC_DEADLINE), 0n);
  bench.write(R.EndOfInterrupt, 0);
  // One in the past is due, 0 disarms, and so does another mode.
  bench.wrmsr(MSR_TSC_DEADLINE, 1n);
  assertEquals(bench.after(0), 0x40);
  bench.wrmsr(MSR_TSC_DEADLINE, 2n ** 64n - 1n);
  bench.wrmsr(MSR_TSC_DEADLINE, 0n);
  assertEquals(bench.apic().untilNext(), Infinity);
  bench.wrmsr(MSR_TSC_DEADLINE, 2n ** 63n);
  bench.write(R.LvtTimer, 0x40);
  assertEquals(bench.apic().untilNext(), Infinity);
});

Deno.test("LocalApic sends to APIC IDs, to all, to all others and to itself", () => {
  const bench = new Bench(3);
  const taken = (): (number | undefined)[] =>
    [0, 1, 2].map((id) => bench.take(id));
  bench.ipi(0x40, 2);
  assertEquals(taken(), [undefined, undefined, 0x40]);
  bench.ipi(0x51, 0xff);
  assertEquals(taken(), [0x51, 0x51, 0x51]);
  bench.ipi(0x61 | 1 << 18);
  assertEquals(taken(), [0x61, undefined, undefined]);
  bench.ipi(0x71 | 2 << 18);
  assertEquals(taken(), [0x71, 0x71, 0x71]);
  bench.ipi(0x81 | 3 << 18);
  assertEquals(taken(), [undefined, 0x81, 0x81]);
  bench.ipi(0x91, 7);
  assertEquals(taken(), [undefined, undefined, undefined]);
  assertEquals(bench.read(R.Command) & 0x1000, 0);
});

Deno.test("LocalApic has a logical destination, flat or in clusters", () => {
  const bench = new Bench(3);
  const all = [0, 1, 2];
  const taken = (): boolean[] => all.map((id) => bench.take(id) !== undefined);
  const end = (): void =>
    all.forEach((id) => bench.write(R.EndOfInterrupt, 0, id));
  const send = (destination: number): boolean[] => {
    end();
    bench.ipi(0x40 | LOGICAL, destination);
    return taken();
  };
  assertEquals(send(0xff), [true, true, true]);
  all.forEach((id) => bench.write(R.LogicalDestination, 1 << (24 + id), id));
  assertEquals(send(0b101), [true, false, true]);
  assertEquals(send(0b1000), [false, false, false]);
  for (const [id, logical] of [0x11, 0x12, 0x21].entries()) {
    bench.write(R.DestinationFormat, 0, id);
    bench.write(R.LogicalDestination, logical << 24, id);
  }
  assertEquals(send(0x13), [true, true, false]);
  assertEquals(send(0x21), [false, false, true]);
  assertEquals(send(0xf1), [true, false, true]);
});

Deno.test("LocalApic gives an interrupt with lowest priority to one", () => {
  const bench = new Bench(3);
  bench.write(R.TaskPriority, 0x30, 0);
  bench.write(R.TaskPriority, 0x10, 1);
  bench.write(R.TaskPriority, 0x20, 2);
  bench.ipi(0x40 | LOWEST, 0xff);
  assertEquals([0, 1, 2].map((id) => bench.lines[id]), [false, true, false]);
  bench.write(R.Spurious, 0xff, 1);
  bench.ipi(0x41 | LOWEST, 0xff);
  assertEquals(bench.lines[2], true);
});

Deno.test("LocalApic carries NMI, INIT and startup, switched off by software or not", () => {
  const bench = new Bench(2);
  bench.write(R.Spurious, 0xff, 1);
  bench.ipi(NMI, 1);
  bench.ipi(INIT | ASSERT, 1);
  // Level de-assert is nothing.
  bench.ipi(INIT | 0x8000, 1);
  bench.ipi(STARTUP | ASSERT | 0x9a, 1);
  bench.ipi(0x40, 1);
  // SMI, and what is reserved.
  bench.ipi(2 << 8, 1);
  bench.ipi(3 << 8, 1);
  assertEquals(bench.told, ["1 nmi", "1 init", "1 startup 154"]);
  assertEquals(bench.take(1), undefined);
});

Deno.test("LocalApic lets the PIC pair through as its LINT0 says", () => {
  const bench = new Bench();
  const apic = bench.apic();
  apic.setLint0(true);
  assertEquals([bench.lines[0], apic.externalInterrupt], [false, false]);
  bench.write(R.LvtLint0, EXTINT);
  assertEquals([bench.lines[0], apic.externalInterrupt], [true, true]);
  // No priority holds it back.
  bench.write(R.TaskPriority, 0xff);
  assertEquals(bench.lines[0], true);
  apic.setLint0(false);
  assertEquals(bench.lines[0], false);
  bench.write(R.TaskPriority, 0);
  bench.write(R.LvtLint0, 0x40);
  apic.setLint0(true);
  assertEquals(apic.externalInterrupt, false);
  assertEquals(bench.take(), 0x40);
  apic.setLint0(false);
  bench.write(R.LvtLint0, NMI);
  apic.setLint0(true);
  assertEquals(bench.told, ["0 nmi"]);
  // As firmware leaves it, and switched off altogether.
  apic.reset();
  apic.setVirtualWire();
  apic.setLint0(true);
  assertEquals(bench.lines[0], true);
  bench.write(R.LvtLint0, MASKED);
  assertEquals(bench.lines[0], false);
  bench.wrmsr(MSR_APIC_BASE, 0xfee0_0000n);
  assertEquals(bench.lines[0], true);
});

Deno.test("LocalApic reports errors once ESR is written, and interrupts for new ones", () => {
  const bench = new Bench();
  bench.write(R.LvtError, 0x40);
  bench.ipi(5);
  assertEquals(bench.take(), 0x40);
  bench.write(R.EndOfInterrupt, 0);
  bench.ipi(5);
  assertEquals(bench.take(), undefined);
  assertEquals(bench.read(R.ErrorStatus), 0);
  bench.write(R.ErrorStatus, 0);
  assertEquals(bench.read(R.ErrorStatus), 0x20);
  bench.write(R.ErrorStatus, 0);
  assertEquals(bench.read(R.ErrorStatus), 0);
  bench.apic().request(3, false);
  assertEquals(bench.read(0x3f0), 0);
  bench.write(R.ErrorStatus, 0);
  assertEquals(bench.read(R.ErrorStatus), 0xc0);
  // An error in reporting an error is the end of it.
  bench.write(R.LvtError, 5);
  bench.ipi(5);
  bench.write(R.ErrorStatus, 0);
  assertEquals(bench.read(R.ErrorStatus), 0x60);
});

Deno.test("LocalApic's page takes aligned words only, and follows IA32_APIC_BASE", () => {
  const bench = new Bench();
  const apic = bench.apic();
  apic.writeMmio(PAGE + R.TaskPriority, new Uint8Array([0x20]));
  apic.writeMmio(PAGE + R.TaskPriority + 1, new Uint8Array(4).fill(0x20));
  assertEquals(bench.read(R.TaskPriority), 0);
  const data = new Uint8Array(8);
  apic.readMmio(PAGE + R.Version, data);
  assertEquals([...data], [0x14, 0, 5, 0, 0, 0, 0, 0]);
  apic.readMmio(PAGE + R.Version + 2, data.subarray(0, 1));
  assertEquals(data[0], 5);
  assert(bench.wrmsr(MSR_APIC_BASE, 0x1_d000_0900n));
  assertEquals(
    [apic.decodes(PAGE), apic.decodes(0x1_d000_0020)],
    [false, true],
  );
  bench.x2apic();
  assertEquals(apic.decodes(0x1_d000_0020), false);
});

Deno.test("LocalApic leaves x2APIC mode only by switching off, and enters it only when on", () => {
  const bench = new Bench();
  const to = (bits: number): boolean =>
    bench.wrmsr(MSR_APIC_BASE, BigInt(PAGE | bits) & 0xffff_ffffn);
  assertEquals(to(0x400), false);
  assertEquals(to(X2APIC), true);
  assertEquals(to(XAPIC), false);
  assertEquals(to(0), true);
  assertEquals(to(X2APIC), false);
  assertEquals(to(XAPIC), true);
  assertEquals(bench.read(R.Spurious), 0xff);
  assertEquals(bench.wrmsr(MSR_APIC_BASE, 1n << 60n), false);
  assertEquals(to(XAPIC | 1), false);
});

Deno.test("LocalApic in x2APIC mode has its registers in MSRs, reserved bits and all", () => {
  const bench = new Bench(18);
  assertEquals(bench.rdmsr(0x802), undefined);
  assertEquals(bench.wrmsr(0x808, 0n), false);
  bench.x2apic(17);
  assertEquals(bench.rdmsr(0x802, 17), 17n);
  assertEquals(bench.rdmsr(0x80d, 17), 0x1_0002n);
  assertEquals(bench.rdmsr(0x803, 17), 0x0005_0014n);
  assert(bench.wrmsr(0x808, 0x30n, 17));
  assertEquals(bench.rdmsr(0x80a, 17), 0x30n);
  const refused: [number, bigint][] = [
    [0x808, 0x100n],
    [0x808, 1n << 32n],
    [0x80b, 1n],
    [0x802, 0n],
    [0x80d, 0n],
    [0x80e, 0n],
    [0x80f, 0x200n],
    [0x828, 1n],
    [0x830, 0x1000n],
    [0x831, 0n],
    [0x832, 0x100n],
    [0x839, 0n],
    [0x83f, 0x100n],
    [0x801, 0n],
    [0x840, 0n],
    [0x8ff, 0n],
  ];
  for (const [index, value] of refused) {
    assertEquals(bench.wrmsr(index, value, 17), false, index.toString(16));
  }
  for (const index of [0x80b, 0x80e, 0x831, 0x83f, 0x800, 0x840, 0x8ff]) {
    assertEquals(bench.rdmsr(index, 17), undefined, index.toString(16));
  }
  // To itself, to one by its ID, to a cluster.
  assert(bench.wrmsr(0x83f, 0x51n, 17));
  assertEquals(bench.take(17), 0x51);
  assert(bench.wrmsr(0x80b, 0n, 17));
  assert(bench.wrmsr(0x830, 3n << 32n | 0x61n, 17));
  assertEquals(bench.take(3), 0x61);
  assertEquals(bench.rdmsr(0x830, 17), 3n << 32n | 0x61n);
  bench.x2apic(16);
  assert(bench.wrmsr(0x830, 0x1_0003n << 32n | 0x871n, 17));
  assertEquals([bench.take(16), bench.take(17)], [0x71, 0x71]);
});

Deno.test("LocalApic after INIT keeps its mode and nothing else", () => {
  const bench = new Bench(2);
  bench.x2apic(1);
  bench.wrmsr(0x808, 0x30n, 1);
  bench.apic(1).request(0x40, false);
  bench.apic(1).init();
  assertEquals(bench.rdmsr(0x808, 1), 0n);
  assertEquals(bench.rdmsr(0x802, 1), 1n);
  assertEquals([bench.lines[1], bench.priorities[1]], [false, 0]);
});

Deno.test("LocalApic comes back as it was saved", () => {
  const bench = new Bench();
  bench.write(R.LvtTimer, 0x2_0040);
  bench.write(R.InitialCount, 1000);
  bench.apic().request(0x51, true);
  bench.take();
  bench.apic().request(0x61, false, true);
  bench.time = 700;
  const state = structuredClone(bench.apic().save());
  const other = new Bench();
  other.time = 1e9;
  other.apic().restore(state);
  assertEquals(other.read(R.CurrentCount), 650);
  assertEquals(other.take(), 0x61);
  assertEquals(other.read(R.InService + 0x30), 0);
  other.write(R.EndOfInterrupt, 0);
  assertEquals(other.told, ["0 end 81 level"]);
  assertEquals(other.after(1300), 0x40);
  other.write(R.EndOfInterrupt, 0);
  assertEquals(other.after(2000), 0x40);
});

Deno.test("LocalApic refuses what is no state", () => {
  const bench = new Bench();
  const good = bench.apic().save();
  const bad: unknown[] = [
    undefined,
    {},
    { ...good, registers: [1] },
    { ...good, registers: new Array(64).fill(-1) },
    { ...good, errors: 1.5 },
    { ...good, timer: { ...(good["timer"] as object), left: NaN } },
    { ...good, timer: { ...(good["timer"] as object), deadline: -1n } },
  ];
  for (const state of bad) {
    let message = "";
    try {
      bench.apic().restore(state);
    } catch (error) {
      message = (error as Error).message;
    }
    assert(message.startsWith("Cannot restore "), message);
  }
});

Deno.test("LocalApic survives random registers, MSRs and states", () => {
  const bench = new Bench(2);
  let state = 0x1234_5678;
  const random = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  for (let n = 0; n < 50_000; n++) {
    const id = random() & 1;
    const apic = bench.apic(id);
    const value = random() >>> (random() & 31);
    switch (random() % 6) {
      case 0:
        bench.write((random() & 0xff) << 4, value, id);
        break;
      case 1:
        apic.readMmio(PAGE + (random() & 0xff8), new Uint8Array(8));
        break;
      case 2:
        apic.writeMsr(0x800 + (random() & 0x7f), value, 0);
        break;
      case 3:
        apic.writeMsr(
          MSR_APIC_BASE,
          (PAGE | (random() & 0xd00)) >>> 0,
          0,
        );
        break;
      case 4:
        bench.time += value;
        apic.update();
        break;
      case 5:
        apic.acknowledge();
        assert(apic.untilNext() >= 0);
    }
    const count = apic.readRegister(R.CurrentCount);
    assert(count >= 0 && count <= 0xffff_ffff, `${count}`);
  }
});
