/**
 * A debugger's end of KDNET and KD for tests, written apart from the library: handshake, packets
 * with their acknowledgements, and a few requests.
 *
 * @module
 */
import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  randomBytes,
} from "node:crypto";
import type { MemoryTransport } from "../../hyperv/transports/memory_pair.ts";

/** Numbers of requests. */
export const Api = {
  ReadVirtual: 0x3130,
  WriteVirtual: 0x3131,
  GetContext: 0x3132,
  SetContext: 0x3133,
  WriteBreakpoint: 0x3134,
  RestoreBreakpoint: 0x3135,
  Continue: 0x3136,
  ReadControlSpace: 0x3137,
  WriteControlSpace: 0x3138,
  ReadIo: 0x3139,
  Reboot: 0x313b,
  Continue2: 0x313c,
  ReadPhysical: 0x313d,
  WritePhysical: 0x313e,
  GetVersion: 0x3146,
  CauseBugCheck: 0x3149,
  SwitchProcessor: 0x3150,
  ReadMsr: 0x3152,
  WriteMsr: 0x3153,
  Search: 0x3156,
  Fill: 0x315b,
  QueryMemory: 0x315c,
} as const;

/** How a debugger numbers its packets: counting by 2, or as on a serial line. */
export type Dialect = "counter" | "serial";

/** A stop of the target. */
export interface Stop {
  /** 0x3030 exception, 0x3031 load symbols. */
  state: number;
  /** Exception code, or 0. */
  code: number;
  pc: bigint;
  view: DataView;
}

/** A reply to a request. */
export interface Reply {
  status: number;
  /** The request's head of 56 bytes as the target sent it back. */
  view: DataView;
  data: Uint8Array;
}

const HEAD = 56;
const DATA_LEADER = 0x3030_3030;
const CONTROL_LEADER = 0x6969_6969;

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** The control key of a key text. */
export function controlKey(text: string): Uint8Array {
  const key = new Uint8Array(32);
  text.split(".").forEach((part, n) => {
    let value = 0n;
    for (const digit of part) value = value * 36n + BigInt(parseInt(digit, 36));
    view(key).setBigUint64(8 * n, value, true);
  });
  return key;
}

/** A debugger on one end of a wire in memory. */
export class KdHost {
  /** Texts that the target printed. */
  readonly prints: string[] = [];
  /** Pokes seen; the payload of the last one. */
  pokes = 0;
  poke: Uint8Array | undefined;
  /** Sessions begun. */
  sessions = 0;
  /** Datagrams that did not open. */
  refused = 0;
  /** Answer pokes. */
  answering = true;
  /** Sees each datagram from the target; false loses it. */
  onDatagram: ((wire: Uint8Array) => boolean) | undefined;
  /** Sees each datagram to the target; returns what is sent instead. */
  onSend: ((wire: Uint8Array) => Uint8Array[]) | undefined;
  /** Let the target go on by itself when it reports its image. */
  continueAtImages = true;
  /** Images that were reported. */
  readonly images: { path: string; base: bigint; size: number }[] = [];
  readonly #wire: MemoryTransport;
  readonly #control: Uint8Array;
  readonly #hmac: Uint8Array;
  readonly #dialect: Dialect;
  #data: Uint8Array | undefined;
  #version = 0;
  #sent = 0;
  #received = 0n;
  #id = 0;
  #lastId = -1;
  #stops: Stop[] = [];
  #replies: Reply[] = [];
  #changed: (() => void)[] = [];
  #breakIn = false;

  constructor(wire: MemoryTransport, key: string, dialect: Dialect) {
    this.#wire = wire;
    this.#control = controlKey(key);
    this.#hmac = this.#control.map((byte) => ~byte);
    this.#dialect = dialect;
    wire.onActivity = () => {
      for (let data = wire.receive(); data; data = wire.receive()) {
        if (this.onDatagram?.(data) ?? true) this.#receive(data);
      }
    };
  }

  // KDNET. ---------------------------------------------------------------------

  #tag(bytes: Uint8Array): Uint8Array {
    return createHmac("sha256", this.#hmac).update(bytes).digest().subarray(
      0,
      16,
    );
  }

  /** Seals a payload. */
  seal(channel: number, sequence: number, payload: Uint8Array): Uint8Array {
    const pad = -(8 + payload.length) & 15;
    const clear = new Uint8Array(6 + 8 + payload.length + pad);
    clear.set([0x4d, 0x44, 0x42, 0x47, this.#version, channel]);
    view(clear).setBigUint64(6, BigInt(sequence) << 8n | 0x80n | BigInt(pad));
    clear.set(payload, 14);
    const tag = this.#tag(clear);
    const key = channel === 1 ? this.#control : this.#data!;
    const cipher = createCipheriv("aes-256-cbc", key, tag)
      .setAutoPadding(false);
    return Uint8Array.from([
      ...clear.subarray(0, 6),
      ...cipher.update(clear.subarray(6)),
      ...cipher.final(),
      ...tag,
    ]);
  }

  /** Sends bytes as they are. */
  sendRaw(wire: Uint8Array): void {
    for (const data of this.onSend?.(wire) ?? [wire]) this.#wire.send(data);
  }

  #send(payload: Uint8Array): void {
    this.sendRaw(this.seal(0, ++this.#sent, payload));
  }

  #receive(wire: Uint8Array): void {
    const channel = wire[5]!;
    const key = channel === 1 ? this.#control : this.#data;
    if (
      wire.length < 38 || (wire.length - 22) % 16 !== 0 || key === undefined
    ) {
      this.refused++;
      return;
    }
    const tag = wire.subarray(-16);
    const cipher = createDecipheriv("aes-256-cbc", key, tag)
      .setAutoPadding(false);
    const plain = new Uint8Array(cipher.update(wire.subarray(6, -16)));
    const expected = this.#tag(
      Uint8Array.from([...wire.subarray(0, 6), ...plain]),
    );
    if (!expected.every((byte, n) => byte === tag[n])) {
      this.refused++;
      return;
    }
    const word = view(plain).getBigUint64(0);
    const sequence = word >> 8n;
    const pad = Number(word & 15n);
    if ((word >> 4n & 15n) !== 0n) throw new Error("direction is not 0");
    const payload = plain.subarray(8, plain.length - pad);
    if (channel === 1) this.#handshake(wire[4]!, Number(sequence), payload);
    else if (sequence > this.#received) {
      this.#received = sequence;
      this.#packet(payload);
    } else throw new Error(`sequence ${sequence} after ${this.#received}`);
  }

  #handshake(version: number, sequence: number, poke: Uint8Array): void {
    this.pokes++;
    this.poke = poke.slice();
    const live = poke[86] !== 0 || poke[87] !== 0;
    if (!this.answering || (live && this.#data !== undefined)) return;
    this.#version = version;
    const response = new Uint8Array(322);
    response.set([1, 2]);
    response.set(poke.subarray(2, 34), 2);
    response.set(randomBytes(32), 34);
    this.#data = new Uint8Array(
      createHash("sha256").update(this.#control).update(response).digest(),
    );
    this.#sent = 0;
    this.#received = 0n;
    this.#id = this.#dialect === "counter" ? 0x8000_0000 : 0x8080_0800;
    this.#lastId = -1;
    this.sessions++;
    this.sendRaw(this.seal(1, sequence, response));
    this.#notify();
  }

  /** Forgets the session, as a debugger that was started again. */
  forget(): void {
    this.#data = undefined;
  }

  // Packets. -------------------------------------------------------------------

  /** Sends a control packet. */
  control(type: number, id: number): void {
    const packet = new Uint8Array(16);
    view(packet).setUint32(0, CONTROL_LEADER, true);
    view(packet).setUint16(4, type, true);
    view(packet).setUint32(8, id, true);
    this.#send(packet);
  }

  /** A data packet. */
  packet(type: number, id: number, payload: Uint8Array): Uint8Array {
    const packet = new Uint8Array(16 + payload.length);
    const head = view(packet);
    head.setUint32(0, DATA_LEADER, true);
    head.setUint16(4, type, true);
    head.setUint16(6, payload.length, true);
    head.setUint32(8, id, true);
    head.setUint32(12, payload.reduce((sum, byte) => sum + byte, 0), true);
    packet.set(payload, 16);
    return packet;
  }

  #nextId(): number {
    const id = this.#id;
    this.#id = this.#dialect === "counter"
      ? id + 2
      : (((id & ~0x800) ^ 1) >>> 0);
    return id;
  }

  #packet(packet: Uint8Array): void {
    // The first of a session.
    if (packet.length < 16) return;
    const head = view(packet);
    const type = head.getUint16(4, true);
    const id = head.getUint32(8, true);
    if (head.getUint32(0, true) === CONTROL_LEADER) return;
    const payload = packet.slice(16);
    const sum = payload.reduce((total, byte) => total + byte, 0);
    if (payload.length !== head.getUint16(6, true)) throw new Error("length");
    if (sum !== head.getUint32(12, true)) throw new Error("checksum");
    this.control(4, this.#dialect === "serial" ? (id & ~0x800) >>> 0 : id);
    if (id === this.#lastId) return;
    this.#lastId = id;
    const fields = view(payload);
    switch (type) {
      case 2:
        this.#replies.push({
          status: fields.getUint32(8, true),
          view: fields,
          data: payload.subarray(HEAD),
        });
        break;
      case 3:
        this.prints.push(
          new TextDecoder().decode(
            payload.subarray(16, 16 + fields.getUint32(8, true)),
          ),
        );
        break;
      case 7:
        this.#stateChange(payload, fields);
        break;
    }
    this.#notify();
  }

  #stateChange(payload: Uint8Array, fields: DataView): void {
    const state = fields.getUint32(0, true);
    if (state === 0x3031) {
      const length = fields.getUint32(32, true);
      this.images.push({
        path: new TextDecoder().decode(payload.subarray(240, 239 + length)),
        base: fields.getBigUint64(40, true),
        size: fields.getUint32(60, true),
      });
      if (this.continueAtImages) {
        this.continue();
        return;
      }
    }
    this.#stops.push({
      state,
      code: state === 0x3030 ? fields.getUint32(32, true) : 0,
      pc: fields.getBigUint64(24, true),
      view: fields,
    });
  }

  #notify(): void {
    for (const wake of this.#changed.splice(0)) wake();
  }

  /** Waits until `found` has something, `again` being called each half second. */
  async #until<T>(
    what: string,
    found: () => T | undefined,
    again?: () => void,
  ): Promise<T> {
    const end = performance.now() + 20_000;
    for (;;) {
      const value = found();
      if (value !== undefined) return value;
      if (performance.now() > end) throw new Error(`Waited in vain: ${what}`);
      let timer: ReturnType<typeof setTimeout> | undefined;
      const late = await new Promise<boolean>((resolve) => {
        this.#changed.push(() => resolve(false));
        timer = setTimeout(() => resolve(true), 500);
      });
      clearTimeout(timer);
      if (late) again?.();
    }
  }

  // What a debugger does. ------------------------------------------------------

  /** Waits for a session with a number above `after`. */
  session(after = 0): Promise<number> {
    return this.#until(
      "session",
      () => this.sessions > after ? this.sessions : undefined,
    );
  }

  /** Waits for a print that contains `text`. */
  printed(text: string): Promise<string> {
    return this.#until(
      `print ${text}`,
      () => this.prints.find((print) => print.includes(text)),
    );
  }

  /** Waits for the next stop. */
  stopped(): Promise<Stop> {
    return this.#until("stop", () => this.#stops.shift());
  }

  /** Breaks in. */
  breakIn(): Promise<Stop> {
    const ask = (): void => this.#send(Uint8Array.of(0x62));
    ask();
    return this.#until("break-in", () => this.#stops.shift(), ask);
  }

  /** Sends a request; `fields` are written at their offsets. Its packet is returned. */
  order(
    api: number,
    fields: (head: DataView) => void = () => {},
    data: Uint8Array = new Uint8Array(0),
  ): Uint8Array {
    const payload = new Uint8Array(HEAD + data.length);
    view(payload).setUint32(0, api, true);
    view(payload).setUint32(8, 0x103, true);
    fields(view(payload));
    payload.set(data, HEAD);
    const packet = this.packet(2, this.#nextId(), payload);
    this.#send(packet);
    return packet;
  }

  /** Sends a request, and again after half a second, until the reply comes. */
  request(
    api: number,
    fields?: (head: DataView) => void,
    data?: Uint8Array,
  ): Promise<Reply> {
    const packet = this.order(api, fields, data);
    return this.#until(
      `reply to 0x${api.toString(16)}`,
      () => {
        const reply = this.#replies.shift();
        return reply?.view.getUint32(0, true) === api ? reply : undefined;
      },
      () => this.#send(packet),
    );
  }

  /** Lets the target go on, without or with a trace flag. */
  continue(trace = 0): void {
    this.order(Api.Continue2, (head) => {
      head.setUint32(16, 0x1_0002, true);
      head.setUint32(20, trace, true);
      head.setBigUint64(24, 0x400n, true);
      head.setBigUint64(32, 1n, true);
    });
  }

  /** One instruction. */
  async step(): Promise<Stop> {
    this.continue(1);
    return await this.stopped();
  }

  async read(address: bigint, count: number): Promise<Uint8Array> {
    const parts: number[] = [];
    while (parts.length < count) {
      const reply = await this.request(Api.ReadVirtual, (head) => {
        head.setBigUint64(16, address + BigInt(parts.length), true);
        head.setUint32(24, count - parts.length, true);
      });
      if (reply.status !== 0) throw new Error(`status ${reply.status}`);
      parts.push(...reply.data);
    }
    return Uint8Array.from(parts);
  }

  async readU64(address: bigint): Promise<bigint> {
    return view(await this.read(address, 8)).getBigUint64(0, true);
  }

  async write(address: bigint, data: Uint8Array): Promise<Reply> {
    return await this.request(Api.WriteVirtual, (head) => {
      head.setBigUint64(16, address, true);
      head.setUint32(24, data.length, true);
    }, data);
  }
}
