/**
 * A server of GDB's remote protocol for the guest of a {@linkcode Machine}, over any stream of
 * bytes.
 *
 * @module
 */
import type { Vcpu } from "../backend.ts";
import { type DebuggedMachine, Execution } from "./execution.ts";
import { encodePacket, PacketReader } from "./packet.ts";
import { Session } from "./session.ts";

/** Both ways of a connection, such as a TCP socket's. */
export interface ByteStream {
  /** What the client sends. */
  readonly readable: ReadableStream<Uint8Array>;
  /** What the client gets. */
  readonly writable: WritableStream<Uint8Array>;
}

/** How a {@linkcode GdbStub} is made. */
export interface GdbOptions {
  /** The machine; one debugger at a time. */
  machine: DebuggedMachine;
  /** Hold the guest before its first instruction until a client lets it go. Default false. */
  wait?: boolean;
  /**
   * Describe the CPU to GDB with 64-bit registers although long mode is not active when the
   * client connects. Default false. In long mode they are always 64-bit ones.
   */
  amd64?: boolean;
  /** Takes the user's `monitor` commands; returns what to print. */
  monitor?: (command: string, vcpu: Vcpu) => string;
}

/**
 * Lets GDB debug a guest. One client at a time; while none is there the guest runs as if there
 * were no stub. A client that connects stops it; one that goes without `detach` leaves it
 * stopped if it was.
 */
export class GdbStub {
  readonly #o: GdbOptions;
  readonly #execution: Execution;
  #session: Session | undefined;
  /** What was sent last has left. */
  #sent: Promise<void> = Promise.resolve();

  /** Takes a machine over; serves nobody yet. */
  constructor(options: GdbOptions) {
    this.#o = options;
    this.#execution = new Execution(options.machine, options.wait ?? false);
  }

  /** Whether a client is there. */
  get busy(): boolean {
    return this.#session !== undefined;
  }

  /**
   * Serves a client until it goes.
   *
   * @throws {Error} If there is one already.
   */
  async serve(stream: ByteStream): Promise<void> {
    if (this.busy) throw new Error("Cannot serve GDB: a client is there");
    const writer = stream.writable.getWriter();
    let acks = true;
    let last = "";
    const write = (bytes: Uint8Array): void => {
      // A client that has gone shows in reading.
      this.#sent = writer.write(bytes).catch(() => {});
    };
    const send = (data: string): void => {
      last = data;
      write(encodePacket(data));
    };
    const session = new Session({
      machine: this.#o.machine,
      execution: this.#execution,
      amd64: this.#o.amd64 ?? false,
      monitor: this.#o.monitor ?? (() => "no monitor commands here\n"),
      send,
    });
    this.#session = session;
    const reader = new PacketReader();
    try {
      for await (const bytes of stream.readable) {
        for (const received of reader.push(bytes)) {
          switch (received.kind) {
            case "interrupt":
              session.interrupt();
              break;
            case "nack":
              if (acks && last !== "") write(encodePacket(last));
              break;
            case "damaged":
              if (acks) write(NACK);
              break;
            case "packet": {
              if (acks) write(ACK);
              const verdict = session.packet(received.data);
              if (verdict === "no acks") acks = false;
              if (verdict === "close") return;
              break;
            }
          }
          // One that does not read its answers gets no more of them.
          await this.#sent;
        }
      }
    } catch {
      // The connection broke.
    } finally {
      this.#session = undefined;
      this.#execution.onStop = undefined;
      this.#execution.abandon();
      await writer.close().catch(() => {});
    }
  }

  /** Tells the client that the guest's run is over, with its exit code. */
  async ended(code: number): Promise<void> {
    this.#session?.ended(code);
    await this.#sent;
  }
}

const ACK = Uint8Array.of(0x2b);
const NACK = Uint8Array.of(0x2d);
