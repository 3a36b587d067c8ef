import { assertEquals, assertThrows } from "@std/assert";
import { PicPair } from "../../../core/devices/pic.ts";

const MASTER = 0x20, SLAVE = 0xa0;
const EOI = 0x20, READ_IRR = 0x0a, READ_ISR = 0x0b;

class Bench {
  line = false;
  readonly pic: PicPair = new PicPair((asserted) => this.line = asserted);

  /** Vectors 0x20 and 0x28, all inputs open. */
  constructor(icw4 = 1, slaveIcw4 = icw4) {
    this.init(MASTER, 0x11, 0x20, 4, icw4);
    this.init(SLAVE, 0x11, 0x28, 2, slaveIcw4);
  }

  init(chip: number, icw1: number, ...rest: number[]): void {
    this.out(chip, icw1);
    for (const value of rest) this.out(chip + 1, value);
  }

  out(port: number, value: number): void {
    this.pic.writePort(port, 1, value);
  }

  in(port: number): number {
    return this.pic.readPort(port);
  }

  isr(chip: number): number {
    this.out(chip, READ_ISR);
    return this.in(chip);
  }

  irr(chip: number): number {
    this.out(chip, READ_IRR);
    return this.in(chip);
  }

  pulse(...lines: number[]): void {
    for (const line of lines) {
      this.pic.setLine(line, false);
      this.pic.setLine(line, true);
    }
  }

  /** The vector taken, or undefined if none is announced. */
  take(): number | undefined {
    return this.line ? this.pic.acknowledge() : undefined;
  }
}

Deno.test("PicPair announces nothing before it is set up", () => {
  let line = false;
  const pic = new PicPair((asserted) => line = asserted);
  for (let n = 0; n < 16; n++) if (n !== 2) pic.setLine(n, true);
  assertEquals(line, false);
  assertEquals([pic.readPort(0x21), pic.readPort(0xa1)], [0xff, 0xff]);
});

Deno.test("PicPair gives each line its vector", () => {
  for (let n = 0; n < 16; n++) {
    if (n === 2) continue;
    const bench = new Bench();
    bench.pulse(n);
    assertEquals(bench.take(), 0x20 + n);
    assertEquals(bench.line, false);
    const chip = n < 8 ? MASTER : SLAVE;
    assertEquals(bench.isr(chip), 1 << (n & 7));
    assertEquals(bench.isr(MASTER), n < 8 ? 1 << n : 4);
    if (n >= 8) bench.out(SLAVE, EOI);
    bench.out(MASTER, EOI);
    assertEquals([bench.isr(MASTER), bench.isr(SLAVE)], [0, 0]);
  }
});

Deno.test("PicPair takes one interrupt for an edge", () => {
  const bench = new Bench();
  bench.pic.setLine(4, true);
  bench.pic.setLine(4, true);
  assertEquals(bench.take(), 0x24);
  bench.out(MASTER, EOI);
  assertEquals(bench.take(), undefined);
  bench.pulse(4);
  assertEquals(bench.take(), 0x24);
});

Deno.test("PicPair lets higher priorities interrupt lower ones only", () => {
  const bench = new Bench();
  bench.pulse(5);
  assertEquals(bench.take(), 0x25);
  bench.pulse(6, 5);
  assertEquals(bench.take(), undefined);
  bench.pulse(1, 0);
  assertEquals(bench.take(), 0x20);
  assertEquals(bench.take(), undefined);
  bench.out(MASTER, EOI);
  assertEquals(bench.isr(MASTER), 0x20);
  assertEquals(bench.take(), 0x21);
  bench.out(MASTER, EOI);
  bench.out(MASTER, EOI);
  assertEquals([bench.take(), bench.irr(MASTER)], [0x25, 0x40]);
});

Deno.test("PicPair has the second chip between lines 1 and 3", () => {
  const bench = new Bench();
  bench.pulse(3, 8, 15, 1);
  const order: (number | undefined)[] = [];
  for (let n = 0; n < 4; n++) {
    const vector = bench.take();
    order.push(vector);
    if (vector! >= 0x28) bench.out(SLAVE, EOI);
    bench.out(MASTER, EOI);
  }
  assertEquals(order, [0x21, 0x28, 0x2f, 0x23]);
});

Deno.test("PicPair keeps a masked request and announces it when it is opened", () => {
  const bench = new Bench();
  bench.out(0x21, 0x08);
  bench.pulse(3);
  assertEquals([bench.line, bench.irr(MASTER)], [false, 8]);
  bench.out(0x21, 0);
  assertEquals(bench.take(), 0x23);
  bench.out(0x21, 0xa5);
  assertEquals(bench.in(0x21), 0xa5);
});

Deno.test("PicPair gives the spurious vector 7 if a request has gone", () => {
  const bench = new Bench();
  bench.pic.setLine(3, true);
  assertEquals(bench.line, true);
  bench.pic.setLine(3, false);
  assertEquals(bench.line, false);
  assertEquals(bench.pic.acknowledge(), 0x27);
  assertEquals(bench.isr(MASTER), 0);
});

Deno.test("PicPair's specific EOI ends the named level", () => {
  const bench = new Bench();
  bench.pulse(5);
  bench.take();
  bench.pulse(1);
  bench.take();
  assertEquals(bench.isr(MASTER), 0x22);
  bench.out(MASTER, 0x65);
  assertEquals(bench.isr(MASTER), 0x02);
});

Deno.test("PicPair rotates priorities at a rotating EOI", () => {
  const bench = new Bench();
  bench.pulse(4);
  bench.take();
  bench.out(MASTER, 0xa0);
  // 4 is lowest now: 5 comes first.
  bench.pulse(3, 4, 5);
  assertEquals(bench.take(), 0x25);
  bench.out(MASTER, EOI);
  assertEquals(bench.take(), 0x23);
  bench.out(MASTER, EOI);
  assertEquals(bench.take(), 0x24);
});

Deno.test("PicPair sets the lowest priority by command", () => {
  const bench = new Bench();
  bench.out(MASTER, 0xc5);
  bench.pulse(0, 6);
  assertEquals(bench.take(), 0x26);
  bench.out(MASTER, 0xe6);
  assertEquals(bench.isr(MASTER), 0);
  bench.pulse(7, 6);
  assertEquals(bench.take(), 0x27);
});

Deno.test("PicPair needs no EOI in automatic mode", () => {
  const bench = new Bench(3);
  bench.pulse(1);
  assertEquals(bench.take(), 0x21);
  assertEquals(bench.isr(MASTER), 0);
  bench.pulse(5);
  assertEquals(bench.take(), 0x25);
});

Deno.test("PicPair's automatic mode loses no request of the second chip", () => {
  const bench = new Bench(3);
  bench.pulse(9, 10, 11);
  assertEquals(
    [bench.take(), bench.take(), bench.take(), bench.take()],
    [0x29, 0x2a, 0x2b, undefined],
  );
});

Deno.test("PicPair rotates in automatic mode if told so", () => {
  const bench = new Bench(3);
  bench.out(MASTER, 0x80);
  bench.pulse(0);
  assertEquals(bench.take(), 0x20);
  bench.pulse(0, 7);
  assertEquals([bench.take(), bench.take()], [0x27, 0x20]);
  bench.out(MASTER, 0x00);
  bench.pulse(6, 0);
  bench.take();
  assertEquals(bench.take(), 0x20);
  bench.init(MASTER, 0x11, 0x20, 4, 3);
  bench.pulse(0);
  bench.take();
  bench.pulse(0, 7);
  assertEquals(bench.take(), 0x20);
});

Deno.test("PicPair's initialization ends rotation in automatic mode", () => {
  const bench = new Bench(3);
  bench.out(MASTER, 0x80);
  bench.init(MASTER, 0x11, 0x20, 4, 3);
  bench.pulse(0);
  bench.take();
  bench.pulse(0, 7);
  assertEquals(bench.take(), 0x20);
});

Deno.test("PicPair's special mask mode opens lower levels past masked ones", () => {
  const bench = new Bench();
  bench.pulse(2 + 1);
  assertEquals(bench.take(), 0x23);
  bench.out(MASTER, 0x68);
  bench.pulse(5);
  // Level 3 is in service and not masked: it still blocks.
  assertEquals(bench.take(), undefined);
  bench.out(0x21, 0x08);
  assertEquals(bench.take(), 0x25);
  assertEquals(bench.isr(MASTER), 0x28);
  // A plain EOI passes over the masked level.
  bench.out(MASTER, EOI);
  assertEquals(bench.isr(MASTER), 0x08);
  bench.out(MASTER, 0x48);
  bench.pulse(6);
  assertEquals(bench.take(), undefined);
});

Deno.test("PicPair's special fully nested mode lets the second chip nest", () => {
  for (const [icw4, nested] of [[1, undefined], [0x11, 0x28]] as const) {
    const bench = new Bench(icw4, 1);
    bench.pulse(12);
    assertEquals(bench.take(), 0x2c);
    bench.pulse(8);
    assertEquals(bench.take(), nested);
  }
});

Deno.test("PicPair answers a poll with the level and takes it", () => {
  const bench = new Bench();
  bench.out(MASTER, 0x0c);
  assertEquals(bench.in(MASTER) & 0x80, 0);
  bench.pulse(6);
  bench.out(MASTER, 0x0c);
  assertEquals(bench.in(MASTER), 0x86);
  assertEquals([bench.line, bench.isr(MASTER)], [false, 0x40]);
});

Deno.test("PicPair repeats a level-triggered request until its line is low", () => {
  const bench = new Bench();
  bench.out(0x4d1, 0xff);
  assertEquals(bench.in(0x4d1), 0xde);
  bench.out(0x4d0, 0xff);
  assertEquals(bench.in(0x4d0), 0xf8);
  bench.pic.setLine(10, true);
  for (let n = 0; n < 3; n++) {
    assertEquals(bench.take(), 0x2a);
    assertEquals(bench.take(), undefined);
    bench.out(SLAVE, EOI);
    bench.out(MASTER, EOI);
  }
  bench.pic.setLine(10, false);
  assertEquals(bench.take(), undefined);
});

Deno.test("PicPair's first command word clears mask, requests and service", () => {
  const bench = new Bench();
  bench.pulse(1, 5);
  bench.take();
  bench.out(0x21, 0xf0);
  bench.out(MASTER, 0x11);
  assertEquals([bench.in(0x21), bench.isr(MASTER)], [0, 0]);
  assertEquals(bench.irr(MASTER), 0);
  for (const value of [0x47, 4, 1]) bench.out(0x21, value);
  bench.pulse(2 + 1);
  // The low bits of the vector are the chip's.
  assertEquals(bench.take(), 0x43);
});

Deno.test("PicPair expects as many words as ICW1 says", () => {
  const bench = new Bench();
  // No ICW4.
  bench.init(MASTER, 0x10, 0x30, 4);
  bench.out(0x21, 0xfe);
  assertEquals(bench.in(0x21), 0xfe);
  // Single: no ICW3.
  bench.init(MASTER, 0x13, 0x38, 1);
  bench.out(0x21, 0xfd);
  assertEquals(bench.in(0x21), 0xfd);
  bench.pulse(1);
  assertEquals(bench.take(), 0x39);
});

Deno.test("PicPair's reset masks everything", () => {
  const bench = new Bench();
  bench.pulse(4);
  assertEquals(bench.line, true);
  bench.pic.reset();
  assertEquals(bench.line, false);
  assertEquals([bench.in(0x21), bench.irr(MASTER)], [0xff, 0]);
});

Deno.test("PicPair comes back as it was saved, and refuses what is no state", () => {
  const bench = new Bench();
  bench.pulse(4);
  bench.take();
  bench.pulse(12, 1);
  const state = structuredClone(bench.pic.save());
  const other = new Bench();
  other.pic.restore(state);
  assertEquals(other.take(), 0x21);
  assertEquals([other.isr(MASTER), other.irr(SLAVE)], [0x12, 0x10]);
  other.out(MASTER, EOI);
  other.out(MASTER, EOI);
  assertEquals(other.take(), 0x2c);
  assertThrows(
    () => other.pic.restore({ ...state, second: { mask: 256 } }),
    TypeError,
    "Cannot restore interrupt controller: invalid",
  );
});
