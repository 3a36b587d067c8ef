import type { KdnetHost } from "./kdnet_host.ts";
import {
  encodeKdControl,
  encodeKdPacket,
  KD_BREAK_IN,
  type KdPacket,
  KdPacketType,
  parseKdContent,
} from "./packet.ts";

/** A debugger's request that failed: no answer, a restarted target, a status. */
export class KdError extends Error {
  /** NTSTATUS of the target, if it answered. */
  readonly status: number | undefined;

  /** Makes it. */
  constructor(message: string, status?: number) {
    super(message);
    this.name = "KdError";
    this.status = status;
  }
}

/** How long and how often the host tries. */
export interface KdTiming {
  /** Milliseconds until a packet is sent again; WinDbg waits 500. */
  interval: number;
  /** Times that it is sent in all. */
  tries: number;
}

/** A packet that was sent and not yet done with. */
interface Transfer {
  id: number;
  bytes: Uint8Array;
  /** Picks the reply; undefined: the acknowledgement is all. */
  accept: ((packet: KdPacket) => boolean) | undefined;
  /** Whether the target's wish to have it again was granted since the last try. */
  resent: boolean;
  done: (reply: Uint8Array) => void;
  fail: (error: Error) => void;
}

const FIRST_ID = 0x8000_0000;
const ID_STEP = 2;
/** Ids of the serial protocol: these two, and bit 0x800 in the first packet. */
const SERIAL_ID = 0x8080_0000;
const SERIAL_SYNC = 0x800;
/** Tries that pass before the link is reset too. */
const TRIES_BEFORE_RESET = 3;
const NONE = new Uint8Array(0);

function isSerial(id: number): boolean {
  return (id & ~(SERIAL_SYNC | 1)) >>> 0 === SERIAL_ID;
}

/**
 * The debugger's end of KD's packets: one at a time, acknowledged, sent again when lost. Its own ids
 * count up by 2, as WinDbg's do over KDNET; the target's may do that or toggle as on a serial line.
 */
export class KdLink {
  /** Takes the target's packets that are no replies. */
  onPacket: ((packet: KdPacket) => void) | undefined;
  readonly #host: KdnetHost;
  readonly #timing: KdTiming;
  #nextId = FIRST_ID;
  #lastReceived: number | undefined;
  #transfer: Transfer | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  /** The target has begun anew: if it is stopped it says so once more. */
  #afterReset = false;
  /** Why the link does not work any more. */
  #failure: KdError | undefined;
  #epoch = 0;

  /** Makes the link over an end of KDNET. */
  constructor(host: KdnetHost, timing: KdTiming) {
    this.#host = host;
    this.#timing = timing;
  }

  /** Begins anew, as a fresh session does: what is under way fails. */
  restart(reason: string): void {
    this.#nextId = FIRST_ID;
    this.#lastReceived = undefined;
    this.#afterReset = false;
    this.#epoch++;
    this.#transfer?.fail(new KdError(reason));
  }

  /** Ends the link: what is under way fails, and all that is tried later. */
  close(): void {
    this.#failure = new KdError(
      "Cannot reach the target: the session is closed",
    );
    this.#transfer?.fail(this.#failure);
  }

  /** Sends a break-in and, if asked, a reset; wherever a target may listen. */
  async breakIn(reset: boolean): Promise<void> {
    await this.#host.broadcast(KD_BREAK_IN);
    if (reset) await this.#sendReset();
  }

  /**
   * Sends a packet until it is acknowledged.
   *
   * @throws {KdError} If it is not, or the target was restarted.
   */
  async send(type: number, payload: Uint8Array): Promise<void> {
    await this.#inTurn(() => this.#transact(type, payload, undefined));
  }

  /**
   * Sends a packet until its reply comes, the first packet that `accept` takes.
   *
   * @returns The reply's payload.
   * @throws {KdError} If none comes, or the target was restarted.
   */
  request(
    type: number,
    payload: Uint8Array,
    accept: (packet: KdPacket) => boolean,
  ): Promise<Uint8Array> {
    return this.#inTurn(() => this.#transact(type, payload, accept));
  }

  /** Takes a payload of the data channel. */
  async receive(payload: Uint8Array): Promise<void> {
    const content = parseKdContent(payload);
    if (content.kind === "invalid") {
      await this.#host.send(encodeKdControl(KdPacketType.Resend, 0));
    }
    if (content.kind !== "packet") return;
    const { packet } = content;
    if (packet.control) await this.#control(packet);
    else if (packet.type !== KdPacketType.Unused) await this.#data(packet);
  }

  async #data(packet: KdPacket): Promise<void> {
    const { id } = packet;
    const acknowledged = isSerial(id) ? (id & ~SERIAL_SYNC) >>> 0 : id;
    // It leaves before what is sent next, so there is no need to wait for it.
    const sent = this.#host.send(
      encodeKdControl(KdPacketType.Acknowledge, acknowledged),
    );
    this.#deliver(packet);
    await sent;
  }

  #deliver(packet: KdPacket): void {
    const { id } = packet;
    // Sent again because our acknowledgement was lost. Older ones cannot come: the target waits.
    if (id === this.#lastReceived) return;
    this.#lastReceived = id;
    const again = this.#afterReset;
    this.#afterReset = false;
    const transfer = this.#transfer;
    if (transfer?.accept?.(packet)) return transfer.done(packet.payload);
    if (
      packet.type === KdPacketType.StateChange64 && transfer &&
      !transfer.accept
    ) {
      // The stop that the target is about to be let go from.
      if (again) return;
      // A target that stops again has taken the packet that let it go on.
      transfer.done(NONE);
    }
    this.onPacket?.(packet);
  }

  async #control({ type, id }: KdPacket): Promise<void> {
    const transfer = this.#transfer;
    switch (type) {
      case KdPacketType.Acknowledge:
        if (
          transfer && !transfer.accept &&
          ((transfer.id ^ id) & ~SERIAL_SYNC) === 0
        ) transfer.done(NONE);
        return;
      case KdPacketType.Resend:
        // A target that waits itself says so to every packet: that must not become a storm.
        if (transfer && !transfer.resent) {
          transfer.resent = true;
          await this.#host.send(transfer.bytes);
        }
        return;
      case KdPacketType.Reset:
        // Always an answer, so it is not answered. Counted ids go on, those of a serial line begin anew.
        this.#afterReset = true;
        if (isSerial(this.#lastReceived ?? 0)) this.#lastReceived = undefined;
    }
  }

  #sendReset(): Promise<void> {
    const id = this.#transfer?.id ?? this.#nextId;
    return this.#host.broadcast(encodeKdControl(KdPacketType.Reset, id));
  }

  async #transact(
    type: number,
    payload: Uint8Array,
    accept: Transfer["accept"],
  ): Promise<Uint8Array> {
    if (this.#failure) throw this.#failure;
    const id = this.#nextId;
    this.#nextId = (id + ID_STEP | FIRST_ID) >>> 0;
    const bytes = encodeKdPacket(type, id, payload);
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
    // It may fail before anybody waits for it.
    promise.catch(() => {});
    const transfer: Transfer = {
      id,
      bytes,
      accept,
      resent: false,
      done: resolve,
      fail: reject,
    };
    this.#transfer = transfer;
    let tries = 1;
    const timer = setInterval(() => {
      if (tries++ >= this.#timing.tries) {
        reject(new KdError("Cannot reach the target: no answer"));
        return;
      }
      transfer.resent = false;
      const again = async (): Promise<void> => {
        // A target that stopped would say so again, and seem to have gone on.
        if (accept && tries % TRIES_BEFORE_RESET === 0) await this.#sendReset();
        await this.#host.send(bytes);
      };
      again().catch(reject);
    }, this.#timing.interval);
    try {
      await this.#host.send(bytes);
      return await promise;
    } finally {
      clearInterval(timer);
      this.#transfer = undefined;
    }
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const epoch = this.#epoch;
    const turn = this.#turn.then(() => {
      if (epoch === this.#epoch) return work();
      throw new KdError("Cannot reach the target: it was restarted");
    });
    this.#turn = turn.catch(() => {});
    return turn;
  }
}
