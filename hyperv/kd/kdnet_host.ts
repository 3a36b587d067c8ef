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
  encodeResponse,
  HANDSHAKE_KEY,
  isKeepAlive,
  parsePoke,
  type Poke,
} from "./handshake.ts";
import { parseKdnetKey } from "./key.ts";

/** What a datagram meant to the host. */
export type KdnetHostEvent =
  /** The target offered a session, and was answered. */
  | { kind: "offer"; poke: Poke }
  /** The target lives, in a session: ours, or one that we know nothing of. */
  | { kind: "keep-alive"; poke: Poke; ours: boolean }
  /** A payload; `fresh` if it is the first of a session. */
  | { kind: "data"; payload: Uint8Array; fresh: boolean };

/**
 * Sends a datagram: an answer to whoever sent the one that is being received, others to the target.
 */
export type Transmit = (datagram: Uint8Array, answer: boolean) => unknown;

/** A session that the target may take or not. */
interface Candidate {
  clientKey: Uint8Array;
  /** The answer; the same offer gets the same. */
  response: Uint8Array;
  session: DataSession;
}

/** Most offers that are remembered at a time. */
const MAX_CANDIDATES = 4;

function same(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, n) => byte === b[n]);
}

/**
 * The debugger's end of KDNET's datagrams: answers offers, opens and seals.
 *
 * An answered offer is only a candidate. It becomes the session when the first datagram under its key
 * comes, which needs the host's random part of that key; until then the old session goes on. So a replayed
 * handshake cannot end a session, a lost response costs nothing, and a target that was restarted is
 * noticed by its first datagram.
 */
export class KdnetHost {
  /** What came in. */
  readonly counters: KdnetCounters = kdnetCounters();
  readonly #control: KdnetCipher;
  readonly #transmit: Transmit;
  #session: DataSession | undefined;
  #sessionKey: Uint8Array | undefined;
  #candidates: Candidate[] = [];
  #sending: Promise<void> = Promise.resolve();

  private constructor(control: KdnetCipher, transmit: Transmit) {
    this.#control = control;
    this.#transmit = transmit;
  }

  /**
   * Makes the host's end.
   *
   * @param key Key text, such as `1.2.3.4`.
   * @param transmit Sends a datagram to the target.
   * @throws {SyntaxError} If the key is none.
   */
  static async create(
    key: string,
    transmit: Transmit,
  ): Promise<KdnetHost> {
    return new KdnetHost(
      await KdnetCipher.control(parseKdnetKey(key)),
      transmit,
    );
  }

  /** Whether there is a session. */
  get connected(): boolean {
    return this.#session !== undefined;
  }

  /** Forgets the session: the next offer begins another one. */
  disconnect(): void {
    this.#session = undefined;
    this.#sessionKey = undefined;
    this.#candidates = [];
  }

  /** Sends a payload in the session; without one it is lost, as on any wire. */
  send(payload: Uint8Array): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#session !== undefined) {
        this.#transmit(await this.#session.seal(payload), false);
      }
    });
  }

  /**
   * Sends a payload in the session and in every candidate: a target that has taken an offer, and of
   * which no datagram has come yet, gets it too.
   */
  broadcast(payload: Uint8Array): Promise<void> {
    return this.#inTurn(async () => {
      const sessions = this.#candidates.map(({ session }) => session);
      if (this.#session !== undefined) sessions.unshift(this.#session);
      for (const session of sessions) {
        this.#transmit(await session.seal(payload), false);
      }
    });
  }

  /** Takes a datagram; undefined if it meant nothing. Calls must not overlap. */
  async receive(datagram: Uint8Array): Promise<KdnetHostEvent | undefined> {
    this.counters.received++;
    const header = parseKdnetHeader(datagram);
    switch (header?.channel) {
      case KdnetChannel.Control:
        return await this.#receiveControl(datagram);
      case KdnetChannel.Data:
        return await this.#receiveData(datagram);
      default:
        this.counters.malformed++;
        return undefined;
    }
  }

  async #receiveControl(
    datagram: Uint8Array,
  ): Promise<KdnetHostEvent | undefined> {
    const content = await this.#control.open(datagram);
    if (content === undefined) {
      this.counters.wrongKey++;
      return undefined;
    }
    const poke = content.direction === KdnetDirection.FromTarget
      ? parsePoke(content.payload)
      : undefined;
    if (poke === undefined) {
      this.counters.unexpected++;
      return undefined;
    }
    if (isKeepAlive(poke)) {
      const ours = this.#session !== undefined || this.#candidates.length > 0;
      if (!ours) await this.#askForOffer(content);
      return { kind: "keep-alive", poke, ours };
    }
    // A short poke does not say whether it is an offer.
    const known = this.#session !== undefined &&
      (poke.session === undefined || same(poke.clientKey, this.#sessionKey!));
    if (known) return undefined;
    await this.#answer(content, poke);
    return { kind: "offer", poke };
  }

  async #answer(content: KdnetContent, poke: Poke): Promise<void> {
    const { version, sequence } = content;
    let candidate = this.#candidates.find(({ clientKey, session }) =>
      session.version === version && same(clientKey, poke.clientKey)
    );
    if (candidate === undefined) {
      const payload = encodeResponse({
        clientKey: poke.clientKey,
        hostKey: crypto.getRandomValues(new Uint8Array(HANDSHAKE_KEY)),
      });
      const direction = KdnetDirection.FromHost;
      candidate = {
        clientKey: poke.clientKey,
        response: await this.#control.seal({
          version,
          sequence,
          direction,
          payload,
        }),
        session: new DataSession(
          await this.#control.data(payload),
          version,
          direction,
        ),
      };
      this.#candidates.unshift(candidate);
      this.#candidates.splice(MAX_CANDIDATES);
    }
    this.#transmit(candidate.response, true);
  }

  /** An empty control datagram makes a target offer at once. */
  async #askForOffer({ version, sequence }: KdnetContent): Promise<void> {
    this.#transmit(
      await this.#control.seal({
        version,
        sequence,
        direction: KdnetDirection.FromHost,
        payload: new Uint8Array(0),
      }),
      true,
    );
  }

  async #receiveData(
    datagram: Uint8Array,
  ): Promise<KdnetHostEvent | undefined> {
    const current = this.#session;
    const content = await current?.cipher.open(datagram);
    if (content !== undefined) return this.#accept(current!, content, false);
    for (const { session, clientKey } of [...this.#candidates]) {
      const content = await session.cipher.open(datagram);
      if (content === undefined) continue;
      const event = this.#accept(session, content, true);
      if (event !== undefined) {
        this.#session = session;
        this.#sessionKey = clientKey;
        this.#candidates = [];
      }
      return event;
    }
    this.counters.forged++;
    return undefined;
  }

  #accept(
    session: DataSession,
    content: KdnetContent,
    fresh: boolean,
  ): KdnetHostEvent | undefined {
    // What this end sent itself, sent back to it.
    if (content.direction !== KdnetDirection.FromTarget) {
      this.counters.unexpected++;
      return undefined;
    }
    if (!session.advance(content.sequence)) {
      this.counters.replayed++;
      return undefined;
    }
    return { kind: "data", payload: content.payload, fresh };
  }

  /** Datagrams leave in the order of their sequence numbers. */
  #inTurn(work: () => Promise<void>): Promise<void> {
    const turn = this.#sending.then(work);
    this.#sending = turn.catch(() => {});
    return turn;
  }
}
