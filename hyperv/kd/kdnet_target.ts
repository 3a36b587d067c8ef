import {
  KdnetChannel,
  KdnetCipher,
  type KdnetContent,
  KdnetDirection,
  parseKdnetHeader,
} from "./cipher.ts";
import { type KdnetCounters, kdnetCounters } from "./counters.ts";
import { DataSession } from "./data_session.ts";
import {
  encodePoke,
  HANDSHAKE_KEY,
  mappedAddress,
  parseResponse,
  type PokeAddress,
} from "./handshake.ts";
import { parseKdnetKey } from "./key.ts";

/** What a datagram meant to the target. */
export type KdnetTargetEvent =
  /** The host took the offer: a session begins. */
  | { kind: "connected" }
  /** The host asks for an offer. */
  | { kind: "wanted" }
  /** A payload. */
  | { kind: "data"; payload: Uint8Array };

/** How a {@linkcode KdnetTarget} presents itself. */
export interface KdnetTargetOptions {
  /** Version byte, 5 by default. */
  version?: number;
  /** Its own address. */
  target?: PokeAddress;
  /** The host's address. */
  host?: PokeAddress;
}

const VERSION = 5;
const PORT = 50_000;

/** The target's end of KDNET's datagrams: offers a session, opens and seals. */
export class KdnetTarget {
  /** What came in. */
  readonly counters: KdnetCounters = kdnetCounters();
  readonly #control: KdnetCipher;
  readonly #transmit: (datagram: Uint8Array) => unknown;
  readonly #version: number;
  readonly #target: PokeAddress;
  readonly #host: PokeAddress;
  readonly #clientKey = crypto.getRandomValues(new Uint8Array(HANDSHAKE_KEY));
  /** The key of the offer that waits for its response. */
  #offer: Uint8Array | undefined;
  #pokes = 0n;
  #session: DataSession | undefined;
  #sending: Promise<void> = Promise.resolve();

  private constructor(
    control: KdnetCipher,
    transmit: (datagram: Uint8Array) => unknown,
    options: KdnetTargetOptions,
  ) {
    this.#control = control;
    this.#transmit = transmit;
    this.#version = options.version ?? VERSION;
    this.#target = options.target ?? mappedAddress(0x7f00_0001, PORT);
    this.#host = options.host ?? mappedAddress(0x7f00_0001, PORT);
  }

  /**
   * Makes the target's end.
   *
   * @param key Key text, such as `1.2.3.4`.
   * @param transmit Sends a datagram to the host.
   * @throws {SyntaxError} If the key is none.
   */
  static async create(
    key: string,
    transmit: (datagram: Uint8Array) => unknown,
    options: KdnetTargetOptions = {},
  ): Promise<KdnetTarget> {
    const control = await KdnetCipher.control(parseKdnetKey(key));
    return new KdnetTarget(control, transmit, options);
  }

  /** Whether there is a session. */
  get connected(): boolean {
    return this.#session !== undefined;
  }

  /** Ends the session. */
  disconnect(): void {
    this.#session = undefined;
  }

  /**
   * Says that the target lives: Windows does so every three seconds.
   *
   * @param offer Whether to offer a session; by default if there is none.
   */
  poke(offer: boolean = this.#session === undefined): Promise<void> {
    return this.#inTurn(async () => {
      const view = new DataView(this.#clientKey.buffer);
      view.setUint32(0, view.getUint32(0, true) + 1, true);
      const clientKey = this.#clientKey.slice();
      if (offer) this.#offer = clientKey;
      const payload = encodePoke({
        clientKey,
        target: this.#target,
        host: this.#host,
        session: offer ? mappedAddress(0, 0) : this.#host,
      });
      this.#transmit(
        await this.#control.seal({
          version: this.#version,
          sequence: this.#pokes += 3n,
          direction: KdnetDirection.FromTarget,
          payload,
        }),
      );
    });
  }

  /** Sends a payload in the session; without one it is lost. */
  send(payload: Uint8Array): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#session !== undefined) {
        this.#transmit(await this.#session.seal(payload));
      }
    });
  }

  /** Takes a datagram; undefined if it meant nothing. Calls must not overlap. */
  async receive(datagram: Uint8Array): Promise<KdnetTargetEvent | undefined> {
    this.counters.received++;
    const header = parseKdnetHeader(datagram);
    switch (header?.channel) {
      case KdnetChannel.Control: {
        const content = await this.#control.open(datagram);
        if (content === undefined) this.counters.wrongKey++;
        return content && await this.#receiveControl(content);
      }
      case KdnetChannel.Data: {
        const session = this.#session;
        const content = await session?.cipher.open(datagram);
        if (content === undefined) this.counters.forged++;
        return content && this.#receiveData(session!, content);
      }
      default:
        this.counters.malformed++;
        return undefined;
    }
  }

  async #receiveControl(
    { direction, payload }: KdnetContent,
  ): Promise<KdnetTargetEvent | undefined> {
    if (direction === KdnetDirection.FromHost) {
      if (payload.length === 0) return { kind: "wanted" };
      const response = parseResponse(payload);
      if (response?.clientKey.every((byte, n) => byte === this.#offer?.[n])) {
        // A response counts once.
        this.#offer = undefined;
        this.#session = new DataSession(
          await this.#control.data(payload),
          this.#version,
          KdnetDirection.FromTarget,
        );
        return { kind: "connected" };
      }
    }
    this.counters.unexpected++;
    return undefined;
  }

  #receiveData(
    session: DataSession,
    content: KdnetContent,
  ): KdnetTargetEvent | undefined {
    if (content.direction !== KdnetDirection.FromHost) {
      this.counters.unexpected++;
      return undefined;
    }
    if (!session.advance(content.sequence)) {
      this.counters.replayed++;
      return undefined;
    }
    return { kind: "data", payload: content.payload };
  }

  /** Datagrams leave in the order of their sequence numbers. */
  #inTurn(work: () => Promise<void>): Promise<void> {
    const turn = this.#sending.then(work);
    this.#sending = turn.catch(() => {});
    return turn;
  }
}
