import { assertEquals, assertThrows } from "@std/assert";
import { Uart } from "../../../core/devices/uart.ts";

const BASE = 0x3f8;
const DATA = 0, IER = 1, IIR = 2, FCR = 2, LCR = 3, MCR = 4, LSR = 5, MSR = 6;
const SCRATCH = 7;

function setup(): {
  uart: Uart;
  sent: number[];
  line: () => boolean;
  read: (register: number) => number;
  write: (register: number, value: number) => void;
} {
  const sent: number[] = [];
  let level = false;
  const uart = new Uart(BASE, (byte) => sent.push(byte), (to) => level = to);
  return {
    uart,
    sent,
    line: () => level,
    read: (register) => uart.readPort(BASE + register),
    write: (register, value) => uart.writePort(BASE + register, 1, value),
  };
}

Deno.test("Uart sends what is written and is always ready for more", () => {
  const { sent, read, write } = setup();
  assertEquals(read(LSR), 0x60);
  write(DATA, 0x41);
  write(DATA, 0x142);
  assertEquals(sent, [0x41, 0x42]);
  assertEquals(read(LSR), 0x60);
});

Deno.test("Uart hides data and IER behind the divisor when DLAB is set", () => {
  const { sent, read, write } = setup();
  write(IER, 5);
  write(LCR, 0x83);
  write(DATA, 0x0c);
  write(IER, 0x01);
  assertEquals([read(DATA), read(IER), read(LCR)], [0x0c, 0x01, 0x83]);
  write(LCR, 3);
  assertEquals(sent, []);
  assertEquals(read(IER), 5);
});

Deno.test("Uart's IER and MCR keep the bits that exist, scratch all", () => {
  const { read, write } = setup();
  write(IER, 0xff);
  write(MCR, 0xff);
  write(SCRATCH, 0xa5);
  assertEquals([read(IER), read(MCR), read(SCRATCH)], [0x0f, 0x1f, 0xa5]);
});

Deno.test("Uart says in IIR whether its FIFO is on", () => {
  const { read, write } = setup();
  assertEquals(read(IIR), 1);
  write(FCR, 1);
  assertEquals(read(IIR), 0xc1);
  write(FCR, 0);
  assertEquals(read(IIR), 1);
});

Deno.test("Uart hands input over byte by byte", () => {
  const { uart, read } = setup();
  uart.receive(new Uint8Array([1, 2]));
  assertEquals(read(LSR), 0x61);
  assertEquals([read(DATA), read(LSR), read(DATA)], [1, 0x61, 2]);
  assertEquals([read(LSR), read(DATA)], [0x60, 0]);
});

Deno.test("Uart bounds the input that waits", () => {
  const { uart, read } = setup();
  for (let n = 0; n < 10; n++) uart.receive(new Uint8Array(1000).fill(n));
  let count = 0;
  while ((read(LSR) & 1) !== 0) {
    read(DATA);
    count++;
  }
  assertEquals(count, 4096);
});

Deno.test("Uart clearing its FIFO does not lose what is still on the line", () => {
  const { uart, read, write } = setup();
  const bytes = Uint8Array.from({ length: 40 }, (_, n) => n);
  uart.receive(bytes);
  write(FCR, 7);
  assertEquals(read(DATA), 16);
});

Deno.test("Uart interrupts for input only with OUT2 and until it is read", () => {
  const { uart, line, read, write } = setup();
  write(IER, 1);
  uart.receive(new Uint8Array([9]));
  assertEquals(line(), false);
  write(MCR, 8);
  assertEquals(line(), true);
  assertEquals(read(IIR), 4);
  assertEquals(line(), true);
  read(DATA);
  assertEquals([line(), read(IIR)], [false, 1]);
});

Deno.test("Uart interrupts for an empty transmitter, and reading IIR ends that", () => {
  const { line, read, write } = setup();
  write(MCR, 8);
  write(IER, 2);
  assertEquals(line(), true);
  assertEquals(read(IIR), 2);
  assertEquals([line(), read(IIR)], [false, 1]);
  write(DATA, 0x41);
  assertEquals([line(), read(IIR)], [true, 2]);
  // Off and on again raises it anew, by which drivers probe for faulty chips.
  write(IER, 0);
  assertEquals(line(), false);
  write(IER, 2);
  assertEquals(line(), true);
});

Deno.test("Uart gives an edge for each byte, in and out", () => {
  let level = false;
  let edges = 0;
  const uart = new Uart(BASE, () => {}, (to) => {
    if (to && !level) edges++;
    level = to;
  });
  uart.writePort(BASE + MCR, 1, 8);
  uart.writePort(BASE + IER, 1, 1);
  uart.receive(new Uint8Array([1, 2, 3]));
  for (let n = 1; n <= 3; n++) {
    assertEquals(edges, n);
    uart.readPort(BASE + DATA);
  }
  assertEquals([edges, level], [3, false]);
  uart.writePort(BASE + IER, 1, 2);
  assertEquals(edges, 4);
  uart.writePort(BASE + DATA, 1, 0x41);
  assertEquals(edges, 5);
});

Deno.test("Uart reports input before an empty transmitter", () => {
  const { uart, read, write } = setup();
  write(IER, 3);
  uart.receive(new Uint8Array([1]));
  assertEquals(read(IIR), 4);
  read(DATA);
  assertEquals(read(IIR), 2);
});

Deno.test("Uart's modem lines come back in loopback", () => {
  const { sent, read, write } = setup();
  assertEquals(read(MSR), 0xb0);
  write(MCR, 0x10);
  assertEquals(read(MSR), 0);
  for (const [mcr, msr] of [[1, 0x20], [2, 0x10], [4, 0x40], [8, 0x80]]) {
    write(MCR, 0x10 | mcr!);
    assertEquals(read(MSR), msr);
  }
  write(DATA, 0xae);
  assertEquals(sent, []);
  assertEquals([read(LSR), read(DATA), read(LSR)], [0x61, 0xae, 0x60]);
});

Deno.test("Uart's loopback holds no more than its FIFO", () => {
  const { read, write } = setup();
  write(MCR, 0x10);
  for (let n = 0; n < 1000; n++) write(DATA, n);
  let count = 0;
  while ((read(LSR) & 1) !== 0 && count < 2000) {
    read(DATA);
    count++;
  }
  assertEquals(count, 16);
});

Deno.test("Uart's reset clears every register, the input and the line", () => {
  const { uart, line, read, write } = setup();
  write(LCR, 0x80);
  write(DATA, 9);
  write(IER, 9);
  write(LCR, 3);
  write(IER, 3);
  write(FCR, 1);
  write(MCR, 8);
  write(SCRATCH, 1);
  uart.receive(new Uint8Array([1]));
  assertEquals(line(), true);
  uart.reset();
  assertEquals(line(), false);
  assertEquals(
    [IER, IIR, LCR, MCR, LSR, SCRATCH].map(read),
    [0, 1, 0, 0, 0x60, 0],
  );
});

Deno.test("Uart is what Linux takes for a 16550A that needs no workaround", () => {
  // The probes of drivers/tty/serial/8250/8250_port.c, in their order.
  const { line, read, write } = setup();
  const IER_ALL = 0x0f, LOOP = 0x10;
  // autoconfig: interrupt enables, loopback, kind of FIFO.
  write(IER, 0);
  assertEquals(read(IER) & IER_ALL, 0);
  write(IER, IER_ALL);
  assertEquals(read(IER) & IER_ALL, IER_ALL);
  write(IER, 0);
  write(MCR, LOOP | 0x0a);
  assertEquals(read(MSR) & 0xf0, 0x90);
  write(MCR, 0);
  write(LCR, 0xbf);
  assertEquals(read(2) === 0, false);
  write(LCR, 0);
  write(FCR, 1);
  assertEquals(read(IIR) >> 6, 3);
  // No enhanced features, no 64-byte FIFO, no bit 6 in IER.
  for (const lcr of [0x80, 0xbf]) {
    write(LCR, lcr);
    assertEquals(read(2) === 0, false);
  }
  write(LCR, 0);
  write(FCR, 0x21);
  assertEquals(read(IIR) >> 5, 6);
  write(IER, 0x40);
  assertEquals(read(IER), 0);
  // startup: the interrupt for an empty transmitter comes each time that it is enabled.
  write(FCR, 7);
  write(FCR, 0);
  assertEquals([read(LSR), read(IIR) & 1], [0x60, 1]);
  for (let n = 0; n < 2; n++) {
    write(IER, 2);
    assertEquals(read(IIR) & 0x0f, 2);
    write(IER, 0);
  }
  write(MCR, 8);
  write(IER, 2);
  assertEquals([read(LSR) & 0x40, read(IIR) & 1, line()], [0x40, 0, false]);
});

Deno.test("Uart comes back as it was saved, and refuses what is no state", () => {
  const { uart, write } = setup();
  write(IER, 1);
  write(MCR, 8);
  write(LCR, 3);
  uart.receive(new Uint8Array([1, 2, 3]));
  const state = structuredClone(uart.save());
  const other = setup();
  other.uart.restore(state);
  assertEquals(other.line(), true);
  assertEquals([DATA, DATA, DATA, LCR].map(other.read), [1, 2, 3, 3]);
  for (
    const bad of [{}, { ...state, mcr: 32 }, { ...state, input: [256] }, {
      ...state,
      input: new Array(5000).fill(0),
    }]
  ) {
    assertThrows(
      () => other.uart.restore(bad),
      TypeError,
      "Cannot restore serial port: invalid",
    );
  }
});
