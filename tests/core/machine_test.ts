import { assert, assertEquals, assertLess, assertThrows } from "@std/assert";
import {
  type Backend,
  type HypercallFrame,
  HypercallResult,
  MsrResult,
  type VcpuExit,
} from "../../core/backend.ts";
import { GuestMemory } from "../../core/guest_memory.ts";
import { loadImage } from "../../core/loaders/load_image.ts";
import {
  Machine,
  type MachineOptions,
  type MachineState,
} from "../../core/machine.ts";
import { interpreter } from "../../core/x86/backend.ts";
import { fakeBackend, type FakeVcpu, type Script } from "./_fake_backend.ts";

const HALTED: VcpuExit = { reason: "hlt" };
const INTERRUPTED: VcpuExit = { reason: "interrupted" };
const IF = 0x200n;

/** A machine whose vCPU runs `script`. */
function fake(
  script: Script,
  options: Omit<MachineOptions, "backend" | "memory"> = {},
): { machine: Machine; vcpu: FakeVcpu } {
  const machine = new Machine({
    backend: fakeBackend(script),
    memory: new GuestMemory(0x20_0000, 0),
    ...options,
  });
  return { machine, vcpu: machine.vcpus[0] as FakeVcpu };
}

/** A machine that runs 16-bit code at 0x7C00. */
function real(code: readonly number[]): { machine: Machine; output: number[] } {
  const memory = new GuestMemory(0x20_0000);
  const output: number[] = [];
  const machine = new Machine({
    backend: interpreter(),
    memory,
    onOutput: (byte) => output.push(byte),
  });
  loadImage(memory, machine.vcpus[0]!, new Uint8Array(code));
  return { machine, output };
}

/** mov al, value; out port, al */
function out(port: number, ...values: readonly number[]): number[] {
  return values.flatMap((value) =>
    port < 0x100
      ? [0xb0, value, 0xe6, port]
      : [0xba, port & 255, port >> 8, 0xb0, value, 0xee]
  );
}

const SPIN = [0xeb, 0xfe];

Deno.test("Machine.run gives the exit code that the guest wrote", async () => {
  const { machine } = fake((vcpu) => {
    vcpu.host.writePort(0, 0xf4, 4, 0x10);
    return INTERRUPTED;
  });
  assertEquals(await machine.run(), { kind: "exit", code: 0x21 });
});

Deno.test("Machine.run stops at the first thing that ends it", async () => {
  const { machine, vcpu } = fake((vcpu) => {
    vcpu.host.writePort(0, 0xf4, 1, 0);
    vcpu.host.writePort(0, 0x64, 1, 0xfe);
    return { reason: "shutdown" };
  });
  assertEquals(await machine.run(), { kind: "exit", code: 1 });
  assert(vcpu.kicks > 0);
});

Deno.test("Machine.run tells the ends of a run apart", async () => {
  const ends: [Script, string][] = [
    [() => ({ reason: "shutdown" }), "shutdown"],
    [() => HALTED, "halted"],
    [() => ({ reason: "internal-error", message: "no" }), "error"],
    [(vcpu) => {
      vcpu.host.writePort(0, 0x64, 1, 0xfe);
      return INTERRUPTED;
    }, "reset"],
    [(vcpu) => {
      vcpu.host.writePort(0, 0x92, 1, 1);
      return INTERRUPTED;
    }, "reset"],
  ];
  for (const [script, kind] of ends) {
    assertEquals((await fake(script).machine.run()).kind, kind);
  }
});

Deno.test("Machine.run ends a guest that spins when its time is over", async () => {
  const { machine } = real(SPIN);
  const start = performance.now();
  assertEquals(await machine.run({ timeout: 60 }), { kind: "timeout" });
  assertLess(performance.now() - start, 2000);
  machine.close();
});

Deno.test("Machine.run ends a guest that waits when its time is over", async () => {
  const { machine } = real([0xfb, 0xf4, 0xeb, 0xfc]);
  assertEquals(await machine.run({ timeout: 60 }), { kind: "timeout" });
  machine.close();
});

Deno.test("Machine.run lets the event loop live while the guest spins", async () => {
  const { machine } = real(SPIN);
  let ticks = 0;
  const timer = setInterval(() => ticks++, 5);
  assertEquals(await machine.run({ timeout: 150 }), { kind: "timeout" });
  clearInterval(timer);
  assert(ticks >= 3, `${ticks} ticks`);
  machine.close();
});

Deno.test("Machine.run obeys an abort before, while spinning and while waiting", async () => {
  for (const code of [SPIN, [0xfb, 0xf4, 0xeb, 0xfc]]) {
    const { machine } = real(code);
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(), 20);
    const outcome = await machine.run({ timeout: 5000, signal: abort.signal });
    clearTimeout(timer);
    assertEquals(outcome, { kind: "aborted" });
    assertEquals(
      await machine.run({ signal: AbortSignal.abort() }),
      { kind: "aborted" },
    );
    machine.close();
  }
});

Deno.test("Machine.run goes on where the last run ended", async () => {
  // exit with 0, then with 1
  const { machine } = real([...out(0xf4, 0), ...out(0xf4, 1), ...SPIN]);
  assertEquals(await machine.run(), { kind: "exit", code: 1 });
  assertEquals(await machine.run(), { kind: "exit", code: 3 });
  machine.close();
});

Deno.test("Machine sends COM1 and port 0xE9 to its output", async () => {
  const { machine, output } = real([
    ...out(0x3f8, 0x48),
    ...out(0xe9, 0x69),
    0xfa,
    0xf4,
  ]);
  assertEquals(await machine.run({ timeout: 5000 }), { kind: "halted" });
  assertEquals(output, [0x48, 0x69]);
  machine.close();
});

Deno.test("Machine reads all ones where no device is", () => {
  const { machine } = fake(() => HALTED);
  assertEquals(machine.readPort(0, 0xcfc, 4), 0xffff_ffff);
  const data = new Uint8Array(8);
  machine.readMmio(0, 0xfed0_0000, data);
  machine.writeMmio(0, 0xfed0_0000, data);
  assertEquals(data, new Uint8Array(8).fill(0xff));
});

/** Sets both interrupt controllers up, vectors 0x20 and 0x28, with a mask. */
function initPic(mask: number): [number, number][] {
  return [
    [0x20, 0x11],
    [0x21, 0x20],
    [0x21, 4],
    [0x21, 1],
    [0xa0, 0x11],
    [0xa1, 0x28],
    [0xa1, 2],
    [0xa1, 1],
    [0x21, mask],
    [0xa1, 0xff],
  ];
}

function initPicCode(mask: number): number[] {
  return initPic(mask).flatMap(([port, value]) => out(port, value));
}

Deno.test("Machine wires the timer through the interrupt controller", async () => {
  let now = 0;
  const vectors: number[] = [];
  const { machine } = fake((vcpu) => {
    const write = (port: number, value: number): void =>
      vcpu.host.writePort(0, port, 1, value);
    if (now === 0) {
      for (const [port, value] of initPic(0xfe)) write(port, value);
      write(0x43, 0x34);
      write(0x40, 0xa9);
      write(0x40, 0x04);
    }
    if (vcpu.interrupt) {
      vectors.push(vcpu.host.acknowledgeInterrupt(0));
      write(0x20, 0x20);
    }
    now += 500_000;
    if (vectors.length === 3) write(0xf4, 0);
    return INTERRUPTED;
  }, { now: () => now });
  await machine.run({ timeout: 5000 });
  assertEquals(vectors, [0x20, 0x20, 0x20]);
  // Three periods of 1 ms.
  assertEquals(Math.round(now / 1e6), 4);
});

Deno.test("Machine shortens a time slice to the timer's next event", async () => {
  const slices: number[] = [];
  const { machine } = fake((vcpu, slice) => {
    slices.push(slice);
    if (slices.length === 1) {
      vcpu.host.writePort(0, 0x43, 1, 0x34);
      vcpu.host.writePort(0, 0x40, 1, 0xa9);
      vcpu.host.writePort(0, 0x40, 1, 0x04);
      return INTERRUPTED;
    }
    vcpu.host.writePort(0, 0xf4, 1, 0);
    return INTERRUPTED;
  }, { now: () => 0 });
  await machine.run();
  assert(slices[1]! <= 1.01, `${slices}`);
  assert(slices[0]! > slices[1]!, `${slices}`);
});

Deno.test("Machine ends a slice for a timer that the guest sets in it", async () => {
  let next = Infinity;
  const word = (vcpu: FakeVcpu, offset: number, value: number): void => {
    const data = new Uint8Array(4);
    new DataView(data.buffer).setUint32(0, value, true);
    vcpu.host.writeMmio(0, 0xfee0_0000 + offset, data);
  };
  const set: ((vcpu: FakeVcpu, milliseconds: number) => void)[] = [
    (vcpu, milliseconds) => {
      word(vcpu, 0x3e0, 0b1011);
      word(vcpu, 0x380, milliseconds * 1e6);
    },
    (vcpu, milliseconds) => {
      const count = Math.round(milliseconds * 1193);
      vcpu.host.writePort(0, 0x43, 1, 0x30);
      vcpu.host.writePort(0, 0x40, 1, count & 255);
      vcpu.host.writePort(0, 0x40, 1, count >> 8);
    },
    (vcpu, milliseconds) => {
      next = milliseconds * 1e6;
      vcpu.host.writeMsr(0, 0x4000_00b0, 1, 0);
    },
  ];
  for (const timer of set) {
    const kicks: number[] = [];
    const { machine } = fake((vcpu, slice) => {
      for (const part of [2, 0.5]) {
        timer(vcpu, slice * part);
        kicks.push(vcpu.kicks);
      }
      vcpu.host.writePort(0, 0xf4, 1, 0);
      return INTERRUPTED;
    }, {
      now: () => 0,
      guestInterface: {
        readMsr: () => MsrResult.Unknown,
        writeMsr: () => MsrResult.Handled,
        hypercall: () => HypercallResult.Unknown,
        untilNext: () => next,
      },
    });
    next = Infinity;
    await machine.run();
    assertEquals(kicks, [0, 1]);
  }
});

Deno.test("Machine wakes a halted guest for a timer that it has just set", async () => {
  // A guest without a periodic tick: 40 times a one-shot of 1 ms, then HLT.
  let rounds = 0;
  const { machine, vcpu } = fake((vcpu) => {
    if (vcpu.interrupt) {
      vcpu.host.acknowledgeInterrupt(0);
      vcpu.host.writePort(0, 0x20, 1, 0x20);
    } else if (rounds > 0) return HALTED;
    if (++rounds > 40) {
      vcpu.host.writePort(0, 0xf4, 1, 0);
      return INTERRUPTED;
    }
    for (
      const [port, value] of [[0x43, 0x30], [0x40, 0xa9], [0x40, 0x04]] as const
    ) {
      vcpu.host.writePort(0, port, 1, value);
    }
    return HALTED;
  });
  for (const [port, value] of initPic(0xfe)) {
    machine.writePort(0, port, 1, value);
  }
  vcpu.setRegisters({ rflags: IF | 2n });
  const start = performance.now();
  assertEquals((await machine.run({ timeout: 20_000 })).kind, "exit");
  // Waiting for the longest nap each time would take 800 ms.
  assertLess(performance.now() - start, 600);
});

Deno.test("Machine's timer interrupts a halted guest of the interpreter", async () => {
  const handler = 0x7c00 + 0x80;
  const main = [
    // IVT entry 0x20 = 0:handler
    ...[0xc7, 0x06, 0x80, 0x00, handler & 255, handler >> 8],
    ...[0xc7, 0x06, 0x82, 0x00, 0, 0],
    ...initPicCode(0xfe),
    ...out(0x43, 0x34),
    ...out(0x40, 0xa9, 0x04),
    // xor bx, bx; sti; again: hlt; cmp bx, 5; jb again
    ...[0x31, 0xdb, 0xfb, 0xf4, 0x83, 0xfb, 5, 0x72, 0xfa],
    ...out(0xf4, 0x21),
    ...SPIN,
  ];
  assert(main.length <= 0x80, `${main.length}`);
  const code = new Array<number>(0x80).fill(0x90);
  code.splice(0, main.length, ...main);
  // inc bx; EOI; iret
  code.push(0x43, ...out(0x20, 0x20), 0xcf);
  const { machine } = real(code);
  assertEquals(await machine.run({ timeout: 5000 }), {
    kind: "exit",
    code: 0x43,
  });
  machine.close();
});

Deno.test("Machine's serial input wakes and interrupts a halted guest", async () => {
  const handler = 0x7c00 + 0x90;
  const main = [
    // IVT entry 0x24 = 0:handler
    ...[0xc7, 0x06, 0x90, 0x00, handler & 255, handler >> 8],
    ...[0xc7, 0x06, 0x92, 0x00, 0, 0],
    ...initPicCode(0xef),
    ...out(0x3f9, 1),
    ...out(0x3fc, 8),
    // sti; again: hlt; jmp again
    ...[0xfb, 0xf4, 0xeb, 0xfd],
  ];
  assert(main.length <= 0x90, `${main.length}`);
  const code = new Array<number>(0x90).fill(0x90);
  code.splice(0, main.length, ...main);
  code.push(
    // mov dx, 0x3f8; in al, dx; out dx, al; cmp al, 'q'; jne +4; out 0xf4, 0
    ...[0xba, 0xf8, 0x03, 0xec, 0xee, 0x3c, 0x71, 0x75, 4],
    ...out(0xf4, 0),
    ...out(0x20, 0x20),
    0xcf,
  );
  const { machine, output } = real(code);
  const send = (text: string): void =>
    machine.sendSerial(new TextEncoder().encode(text));
  const timers = [
    setTimeout(() => send("hi"), 20),
    setTimeout(() => send(" q"), 40),
  ];
  const outcome = await machine.run({ timeout: 5000 });
  timers.forEach(clearTimeout);
  assertEquals(outcome, { kind: "exit", code: 1 });
  assertEquals(new TextDecoder().decode(new Uint8Array(output)), "hi q");
  machine.close();
});

Deno.test("Machine.wake outside a wait does nothing", async () => {
  const { machine } = fake((vcpu) => {
    machine.wake();
    vcpu.host.writePort(0, 0xf4, 1, 0);
    return INTERRUPTED;
  });
  machine.wake();
  assertEquals((await machine.run()).kind, "exit");
});

Deno.test("Machine reports a triple fault of the interpreter", async () => {
  // lidt of a table with limit 0, int3
  const { machine } = real([0x0f, 0x01, 0x1e, 0x06, 0x7c, 0xcc, 0, 0, 0, 0]);
  assertEquals(await machine.run({ timeout: 5000 }), { kind: "shutdown" });
  machine.close();
});

Deno.test("Machine asks its guest interface for MSRs and hypercalls", () => {
  const asked: string[] = [];
  const { machine } = fake(() => HALTED, {
    guestInterface: {
      readMsr: (vcpu, index, value) => {
        asked.push(`read ${vcpu} ${index}`);
        value[0] = 5;
        return index === 1 ? MsrResult.Handled : MsrResult.Unknown;
      },
      writeMsr: (vcpu, index, low, high) => {
        asked.push(`write ${vcpu} ${index} ${low} ${high}`);
        return index === 1 ? MsrResult.Refused : MsrResult.Unknown;
      },
      hypercall: (frame) => {
        asked.push(`call ${frame.vcpu}`);
        return HypercallResult.Handled;
      },
    },
  });
  const value = new Uint32Array(2);
  assertEquals(machine.readMsr(0, 1, value), MsrResult.Handled);
  assertEquals(value[0], 5);
  assertEquals(machine.readMsr(0, 2, value), MsrResult.Unknown);
  assertEquals(machine.writeMsr(0, 1, 3, 4), MsrResult.Refused);
  assertEquals(machine.writeMsr(0, 2, 3, 4), MsrResult.Unknown);
  const frame: HypercallFrame = {
    vcpu: 0,
    longMode: true,
    protectedMode: true,
    cpl: 0,
    gpr: new Uint32Array(32),
  };
  assertEquals(machine.hypercall(frame), HypercallResult.Handled);
  assertEquals(asked, [
    "read 0 1",
    "read 0 2",
    "write 0 1 3 4",
    "write 0 2 3 4",
    "call 0",
  ]);
});

Deno.test("Machine can ignore unknown MSRs, but not refused ones", () => {
  const { machine } = fake(() => HALTED, {
    unknownMsrs: "ignore",
    guestInterface: {
      readMsr: (_vcpu, index) =>
        index === 1 ? MsrResult.Refused : MsrResult.Unknown,
      writeMsr: (_vcpu, index) =>
        index === 1 ? MsrResult.Refused : MsrResult.Unknown,
      hypercall: () => HypercallResult.Unknown,
    },
  });
  const value = new Uint32Array([7, 7]);
  assertEquals(machine.readMsr(0, 2, value), MsrResult.Handled);
  assertEquals([...value], [0, 0]);
  assertEquals(machine.writeMsr(0, 2, 1, 1), MsrResult.Handled);
  assertEquals(machine.readMsr(0, 1, value), MsrResult.Refused);
  assertEquals(machine.writeMsr(0, 1, 1, 1), MsrResult.Refused);
});

Deno.test("Machine without a guest interface knows no MSR and no hypercall", () => {
  const { machine } = fake(() => HALTED);
  const value = new Uint32Array(2);
  assertEquals(machine.readMsr(0, 0x4000_0000, value), MsrResult.Unknown);
  assertEquals(machine.writeMsr(0, 0x4000_0000, 0, 0), MsrResult.Unknown);
});

Deno.test("Machine's devices survive random accesses", () => {
  const { machine } = fake(() => HALTED);
  let state = 0x1234_5678;
  const random = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  const ports = [
    ...[0x20, 0x40, 0x60, 0x70, 0x80, 0x92, 0xa0, 0xe9, 0x3f8, 0x4d0],
    ...[0x600, 0x608, 0xcf8],
  ];
  const data = new Uint8Array(8);
  const sizes = [1, 2, 4];
  for (let n = 0; n < 100_000; n++) {
    const port = ports[random() % ports.length]! + (random() & 7);
    const size = sizes[random() % 3]!;
    const limit = 2 ** (8 * size);
    if ((random() & 1) === 0) {
      machine.writePort(0, port, size, random() % limit);
    } else {
      const value = machine.readPort(0, port, size);
      assert(
        Number.isInteger(value) && value >= 0 && value < limit,
        `${port}: ${value}`,
      );
    }
    const gpa = ((random() & 1) === 0 ? 0xfec0_0000 : 0xfee0_0000) +
      (random() & 0x3ff & (random() & 3 ? ~15 : ~0));
    const part = data.subarray(0, 1 + (random() & 7));
    if ((random() & 1) === 0) {
      part.forEach((_, at) => part[at] = random());
      machine.writeMmio(0, gpa, part);
    } else machine.readMmio(0, gpa, part);
    if ((random() & 63) === 0) {
      const vector = machine.acknowledgeInterrupt(0);
      assert(vector >= -1 && vector < 256, `${vector}`);
    }
  }
});

/** Vcpus whose runs are on another thread, as far as the machine can tell. */
function asyncBackend(
  run: (vcpu: FakeVcpu) => Promise<VcpuExit>,
): Backend {
  const backend = fakeBackend(() => {
    throw new Error("run on this thread");
  });
  return {
    ...backend,
    createVm: (memory, host) => {
      const vm = backend.createVm(memory, host);
      const { createVcpu } = vm;
      vm.createVcpu = () => {
        const vcpu = createVcpu() as FakeVcpu;
        return Object.assign(vcpu, { runAsync: () => run(vcpu) });
      };
      return vm;
    },
  };
}

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

Deno.test("Machine lets vCPUs run elsewhere at the same time", async () => {
  let running = 0, most = 0;
  const runs = [0, 0];
  const machine = new Machine({
    backend: asyncBackend(async (vcpu) => {
      running++;
      most = Math.max(most, running);
      if (runs[vcpu.id]!++ === 0 && vcpu.id === 0) {
        vcpu.host.writeMsr(0, 0x1b, 0xfee0_0d00, 0);
        vcpu.host.writeMsr(0, 0x830, 0x4500, 1);
        vcpu.host.writeMsr(0, 0x830, 0x4608, 1);
      }
      await sleep(3);
      if (runs[1]! >= 3) vcpu.host.writePort(vcpu.id, 0xf4, 1, 0);
      running--;
      return INTERRUPTED;
    }),
    memory: new GuestMemory(0x20_0000, 0),
    cpus: 2,
  });
  assertEquals(await machine.run({ timeout: 5000 }), { kind: "exit", code: 1 });
  // A run that was under way has come back before the machine's did.
  assertEquals([running, most], [0, 2]);
  assertEquals((machine.vcpus[1] as FakeVcpu).started, [8]);
});

Deno.test("Machine wakes a vCPU elsewhere whose HLT crossed with an interrupt", async () => {
  let runs = 0;
  const machine = new Machine({
    backend: asyncBackend(async (vcpu) => {
      if (runs++ > 0) vcpu.host.writePort(0, 0xf4, 1, 0);
      else {
        await sleep(1);
        machine.interrupt(0, 0x40);
      }
      return HALTED;
    }),
    memory: new GuestMemory(0x20_0000, 0),
  });
  machine.vcpus[0]!.setRegisters({ rflags: IF | 2n });
  assertEquals(await machine.run({ timeout: 5000 }), { kind: "exit", code: 1 });
});

Deno.test("Machine reports a run elsewhere that failed", async () => {
  const machine = new Machine({
    backend: asyncBackend(() => Promise.reject(new Error("thread is gone"))),
    memory: new GuestMemory(0x20_0000, 0),
  });
  assertEquals(await machine.run(), {
    kind: "error",
    message: "Error: thread is gone",
  });
});

/** Counts in BX and [0x5000] with the PIT's help, sends a byte now and then. */
const COUNTER = [
  ...[0xc7, 0x06, 0x80, 0x00, 0x00, 0x7d, 0xc7, 0x06, 0x82, 0x00, 0, 0],
  ...initPicCode(0xfe),
  ...out(0x43, 0x34),
  ...out(0x40, 0xa9, 0x04),
  ...[0x31, 0xdb, 0xfb, 0xf4, 0xeb, 0xfd],
];
/** inc bx; mov [0x5000], bx; end of interrupt; cmp bx, 5; jb +6; out 0xf4, 0; iret */
const COUNTER_HANDLER = [
  ...[0x43, 0x89, 0x1e, 0x00, 0x50],
  ...out(0x20, 0x20),
  ...[0x83, 0xfb, 5, 0x72, 4],
  ...out(0xf4, 0),
  0xcf,
];

Deno.test("Machine goes on in another one as it was saved", async () => {
  const { machine } = real(COUNTER);
  machine.vm.memory.write(0x7d00, new Uint8Array(COUNTER_HANDLER));
  while (machine.vm.memory.view.getUint16(0x5000, true) < 2) {
    assertEquals(await machine.run({ timeout: 2 }), { kind: "timeout" });
  }
  const state = structuredClone(machine.save());
  const { machine: other } = real([0xf4]);
  other.vm.memory.write(0, machine.vm.memory.bytes);
  other.restore(state);
  assertEquals(await other.run({ timeout: 5000 }), { kind: "exit", code: 1 });
  assertEquals(other.vm.memory.view.getUint16(0x5000, true), 5);
  machine.close();
  other.close();
});

Deno.test("Machine refuses what is no state of it", () => {
  const { machine } = real([0xf4]);
  const state = machine.save();
  const bad: unknown[] = [
    {},
    { ...state, format: "syndbg-machine-0" },
    { ...state, vcpus: [] },
    { ...state, apics: undefined },
    { ...state, devices: null },
    { ...state, devices: {} },
    { ...state, processors: [{}] },
    { ...state, vcpus: [{ format: "?", data: {} }] },
  ];
  for (const data of bad) {
    assertThrows(
      () => machine.restore(data as MachineState),
      TypeError,
      "Cannot restore ",
    );
  }
  machine.restore(state);
  machine.close();
});

Deno.test("Machine survives states with random changes", async () => {
  const { machine } = real(COUNTER);
  machine.vm.memory.write(0x7d00, new Uint8Array(COUNTER_HANDLER));
  await machine.run({ timeout: 3 });
  const good = machine.save();
  let seed = 0x1234_5678;
  const random = (): number => {
    seed ^= seed << 13;
    seed ^= seed >>> 17;
    seed ^= seed << 5;
    return seed >>> 0;
  };
  const change = (value: unknown): unknown => {
    if (value instanceof Uint8Array) {
      const bytes = new Uint8Array(value);
      for (let n = 0; n < 8; n++) bytes[random() % bytes.length] = random();
      return bytes;
    }
    if (Array.isArray(value)) return value.map(change);
    if (typeof value === "object" && value !== null) {
      return Object.fromEntries(
        Object.entries(value).map(([name, field]) => [name, change(field)]),
      );
    }
    if (random() % 300 !== 0) return value;
    const others = [
      0,
      1,
      -1,
      NaN,
      Infinity,
      random(),
      random() & 255,
      7n,
      true,
    ];
    return others[random() % others.length];
  };
  let taken = 0;
  for (let n = 0; n < 300; n++) {
    try {
      machine.restore(change(good) as MachineState);
      taken++;
    } catch (error) {
      assert(error instanceof TypeError, `${error}`);
    }
    await machine.run({ timeout: 0.2 });
  }
  assert(taken > 50, `${taken} taken`);
  machine.reset();
  machine.restore(good);
  assertEquals(await machine.run({ timeout: 5000 }), { kind: "exit", code: 1 });
  machine.close();
});

Deno.test("Machine's reset puts all of it back, and tells its guest interface", async () => {
  let resets = 0;
  const { machine, vcpu } = fake(() => HALTED, {
    cpus: 2,
    guestInterface: {
      readMsr: () => MsrResult.Unknown,
      writeMsr: () => MsrResult.Unknown,
      hypercall: () => HypercallResult.Unknown,
      reset: () => resets++,
    },
  });
  machine.apic(0).writeRegister(0x80, 0x50);
  machine.writePort(0, 0x3fb, 1, 3);
  machine.writePort(0, 0x21, 1, 0xfe);
  machine.reset();
  assertEquals(machine.apic(0).readRegister(0x80), 0);
  assertEquals(machine.apic(0).readRegister(0xf0), 0x1ff);
  assertEquals(machine.apic(1).readRegister(0xf0), 0xff);
  assertEquals(machine.readPort(0, 0x3fb, 1), 0);
  assertEquals([vcpu.resets, resets], [1, 1]);
  assertEquals(await machine.run(), { kind: "halted" });
});

Deno.test("Machine.run asks its debugger who runs, and tells it what would end the run", async () => {
  const script: VcpuExit[] = [
    { reason: "debug", rip: 0n, dr6: 0n, breakpoint: true },
    { reason: "internal-error", message: "no" },
    { reason: "hlt" },
    INTERRUPTED,
    { reason: "shutdown" },
  ];
  let runs = 0;
  const { machine } = fake(() => script[runs++]!);
  const told: string[] = [];
  let held = true;
  machine.debugger = {
    holds: () => held,
    stopped: (_vcpu, { reason }) => {
      told.push(reason);
      held = reason === "hlt";
      return reason !== "shutdown";
    },
  };
  const run = machine.run();
  for (const expected of [0, 3]) {
    await new Promise((resolve) => setTimeout(resolve, 30));
    assertEquals(runs, expected);
    held = false;
    machine.wake();
  }
  assertEquals(await run, { kind: "shutdown" });
  assertEquals(told, ["debug", "internal-error", "hlt", "shutdown"]);
});

Deno.test("Machine.run ends a guest that its debugger holds", async () => {
  const { machine } = fake(() => INTERRUPTED);
  machine.debugger = { holds: () => true, stopped: () => true };
  assertEquals(await machine.run({ timeout: 30 }), { kind: "timeout" });
  const run = machine.run();
  machine.stop({ kind: "reset" });
  assertEquals(await run, { kind: "reset" });
});
