import type { PortDevice } from "../bus.ts";
import { checkState, type DeviceState } from "./state.ts";

/** Input clock in Hz. */
export const PIT_FREQUENCY = 1_193_182;

const TICKS = Number.MAX_SAFE_INTEGER;
/** State of a {@linkcode Counter}. What may be -1 is one more here. */
const COUNTER_STATE = {
  mode: 5,
  access: 3,
  reload: 0x1_0000,
  loaded: "switch",
  counting: "switch",
  passed: TICKS,
  gate: "switch",
  held: TICKS,
  latch: 0x1_0000,
  status: 0x100,
  readHigh: "switch",
  writeLow: 0x100,
  edges: TICKS,
} as const;

/** One counter of an 8254, computed from the time since it was loaded. */
class Counter {
  mode = 3;
  /** 1: low byte, 2: high byte, 3: both. */
  access = 3;
  reload = 0x1_0000;
  /** A count was written since the mode was. */
  loaded = false;
  /** Tick at which it began to count; Infinity: it has not. */
  start = Infinity;
  gate = true;
  /** Ticks counted when the gate went low. */
  held = 0;
  latch = -1;
  status = -1;
  readHigh = false;
  writeLow = -1;
  /** Ticks at which output edges were reported. */
  edges = 0;

  /** Modes 1 and 5: the gate's edge starts them, its level does not stop them. */
  get triggered(): boolean {
    return this.mode === 1 || this.mode === 5;
  }

  passed(now: number): number {
    return this.gate || this.triggered ? now - this.start : this.held;
  }

  load(value: number, now: number): void {
    this.reload = value || 0x1_0000;
    this.loaded = true;
    this.edges = 0;
    if (this.triggered) return;
    this.start = now;
    this.held = 0;
  }

  setGate(gate: boolean, now: number): void {
    if (gate === this.gate) return;
    if (!gate) this.held = this.passed(now);
    else if (this.loaded) {
      const resumes = this.mode === 0 || this.mode === 4;
      this.start = resumes ? now - this.held : now;
    }
    this.gate = gate;
  }

  count(now: number): number {
    const passed = Math.max(0, this.passed(now));
    if (this.mode === 2 || this.mode === 3) {
      const left = this.reload - passed % this.reload;
      return this.mode === 3 ? (left * 2) % this.reload || this.reload : left;
    }
    return (this.reload - passed) & 0xffff;
  }

  /** Holds the count for reading; a count already held stays. */
  latchCount(now: number): void {
    if (this.latch < 0) this.latch = this.count(now) & 0xffff;
  }

  output(now: number): boolean {
    const passed = this.passed(now);
    switch (this.mode) {
      case 0:
        return passed >= this.reload;
      case 1:
        return passed < 0 || passed >= this.reload;
      case 2:
        return !this.gate || passed % this.reload !== this.reload - 1;
      case 3:
        return !this.gate || passed < 0 ||
          passed % this.reload < this.reload / 2;
      default:
        return passed !== this.reload;
    }
  }

  /** Copies the state out, times as ticks passed. */
  save(now: number): DeviceState {
    const { start, latch, status, writeLow, ...rest } = this;
    const counting = start !== Infinity;
    return {
      ...rest,
      counting,
      passed: counting ? now - start : 0,
      latch: latch + 1,
      status: status + 1,
      writeLow: writeLow + 1,
    };
  }

  restore(now: number, state: unknown): void {
    const { counting, passed, latch, status, writeLow, ...rest } = checkState(
      "timer",
      state,
      COUNTER_STATE,
    );
    Object.assign(this, rest, {
      access: rest.access || 3,
      reload: rest.reload || 0x1_0000,
      start: counting ? now - passed : Infinity,
      latch: latch - 1,
      status: status - 1,
      writeLow: writeLow - 1,
    });
  }

  /** Rising edges of the output since it was loaded. */
  fired(now: number): number {
    const passed = this.passed(now);
    if (this.mode === 2 || this.mode === 3) {
      return Math.floor(passed / this.reload);
    }
    return passed >= this.reload ? 1 : 0;
  }
}

/** The 8254 timer: channel 0 interrupts, channel 2 is the speaker's with its gate in port 0x61. */
export class Pit implements PortDevice {
  readonly #channels = [new Counter(), new Counter(), new Counter()];
  readonly #now: () => number;
  readonly #irq: (level: boolean) => void;
  #speaker = 0;

  /**
   * @param now Nanoseconds, monotonic.
   * @param irq Told the level of interrupt line 0.
   */
  constructor(now: () => number, irq: (level: boolean) => void) {
    this.#now = now;
    this.#irq = irq;
  }

  #ticks(): number {
    return Math.floor(this.#now() * PIT_FREQUENCY / 1e9);
  }

  /** Raises the interrupts that are due; missed ones are one. */
  update(): void {
    const channel = this.#channels[0]!;
    const fired = channel.fired(this.#ticks());
    if (fired > channel.edges) {
      channel.edges = fired;
      this.#irq(false);
      this.#irq(true);
    }
  }

  /** Nanoseconds until channel 0 fires next; Infinity if it does not. */
  untilNext(): number {
    const channel = this.#channels[0]!;
    if (channel.start === Infinity) return Infinity;
    const now = this.#ticks();
    const fired = channel.fired(now);
    if (channel.mode !== 2 && channel.mode !== 3 && fired > 0) return Infinity;
    const next = channel.start + (fired + 1) * channel.reload;
    return Math.max(0, (next - now) * 1e9 / PIT_FREQUENCY);
  }

  readPort(port: number): number {
    if (port === 0x61) {
      const out = this.#channels[2]!.output(this.#ticks());
      // Bit 4 toggles with memory refresh, every 15 us.
      const refresh = Math.floor(this.#now() / 15_085) & 1;
      return (this.#speaker & 3) | (refresh << 4) | (out ? 0x20 : 0);
    }
    const channel = this.#channels[port & 3];
    if (channel === undefined) return 0;
    if (channel.status >= 0) {
      const status = channel.status;
      channel.status = -1;
      return status;
    }
    const value = channel.latch >= 0
      ? channel.latch
      : channel.count(this.#ticks());
    if (channel.access === 1 || (channel.access === 3 && !channel.readHigh)) {
      if (channel.access === 3) {
        channel.readHigh = true;
        channel.latch = value;
      } else channel.latch = -1;
      return value & 255;
    }
    channel.readHigh = false;
    channel.latch = -1;
    return (value >> 8) & 255;
  }

  writePort(port: number, _size: number, value: number): void {
    const byte = value & 255;
    if (port === 0x61) {
      this.#channels[2]!.setGate((byte & 1) !== 0, this.#ticks());
      this.#speaker = byte & 3;
      return;
    }
    if ((port & 3) === 3) this.#control(byte);
    else this.#load(this.#channels[port & 3]!, byte);
  }

  #control(byte: number): void {
    const now = this.#ticks();
    if (byte >> 6 === 3) {
      this.#channels.forEach((channel, n) => {
        if ((byte & (2 << n)) === 0) return;
        if ((byte & 0x20) === 0) channel.latchCount(now);
        if ((byte & 0x10) === 0 && channel.status < 0) {
          channel.status = (channel.output(now) ? 0x80 : 0) |
            (channel.start === Infinity ? 0x40 : 0) |
            (channel.access << 4) | (channel.mode << 1);
        }
      });
      return;
    }
    const channel = this.#channels[byte >> 6]!;
    const access = (byte >> 4) & 3;
    if (access === 0) {
      channel.latchCount(now);
      return;
    }
    channel.access = access;
    channel.mode = (byte >> 1) & 7;
    if (channel.mode > 5) channel.mode -= 4;
    channel.readHigh = false;
    channel.writeLow = -1;
    channel.latch = -1;
    // It waits for its count before it fires.
    channel.loaded = false;
    channel.start = Infinity;
    channel.held = 0;
    if (channel === this.#channels[0]) this.#irq(false);
  }

  #load(channel: Counter, byte: number): void {
    let value: number;
    if (channel.access === 1) value = byte;
    else if (channel.access === 2) value = byte << 8;
    else if (channel.writeLow < 0) {
      channel.writeLow = byte;
      return;
    } else {
      value = channel.writeLow | (byte << 8);
      channel.writeLow = -1;
    }
    channel.load(value, this.#ticks());
    if (channel === this.#channels[0]) this.#irq(false);
  }

  /** Copies the state out. */
  save(): DeviceState {
    const now = this.#ticks();
    return {
      channels: this.#channels.map((channel) => channel.save(now)),
      speaker: this.#speaker,
    };
  }

  /** Takes back what {@linkcode Pit.save} gave. */
  restore(state: DeviceState): void {
    const { speaker } = checkState("timer", state, { speaker: 3 });
    const channels = state["channels"];
    const now = this.#ticks();
    this.#channels.forEach((channel, n) =>
      channel.restore(now, Array.isArray(channels) ? channels[n] : undefined)
    );
    this.#speaker = speaker;
  }

  /** State after power-on: nothing counts until it is programmed. */
  reset(): void {
    this.#channels.forEach((channel) => {
      Object.assign(channel, new Counter());
    });
    this.#speaker = 0;
    this.#channels[2]!.gate = false;
    this.#irq(false);
  }
}
