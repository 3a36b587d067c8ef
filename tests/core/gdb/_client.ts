import { GuestMemory } from "../../../core/guest_memory.ts";
import {
  loadImage,
  type LoadOptions,
} from "../../../core/loaders/load_image.ts";
import { type GdbOptions, GdbStub } from "../../../core/gdb/stub.ts";
import {
  encodePacket,
  PacketReader,
  type Received,
  toBytes,
} from "../../../core/gdb/packet.ts";
import { Machine, type MachineOutcome } from "../../../core/machine.ts";
import { interpreter } from "../../../core/x86/backend.ts";
import { bytes } from "../x86/system/_machine.ts";

/** Where the code of {@linkcode debugged} is. */
export const CODE = 0x10_0000;

/** GDB's end of a connection to a stub in this process. */
export class GdbClient {
  /** Resolves when the stub has let go of the connection. */
  readonly served: Promise<void>;
  /** The stub expects `+`. */
  acks = true;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #received: AsyncGenerator<Received>;

  constructor(stub: GdbStub) {
    const up = new TransformStream<Uint8Array, Uint8Array>();
    const down = new TransformStream<Uint8Array, Uint8Array>();
    this.served = stub.serve({
      readable: up.readable,
      writable: down.writable,
    });
    this.#writer = up.writable.getWriter();
    this.#received = receive(down.readable);
  }

  /** Sends bytes as they are, as a socket would: without waiting for the stub to read them. */
  raw(bytes: string | Uint8Array): void {
    const data = typeof bytes === "string" ? toBytes(bytes) : bytes;
    this.#writer.write(data).catch(() => {});
  }

  /** Sends a packet. */
  send(data: string): void {
    this.raw(encodePacket(data));
  }

  /** What comes next, acknowledgements included; undefined at the end. */
  async next(): Promise<Received | undefined> {
    const { value, done } = await this.#received.next();
    return done ? undefined : value;
  }

  /** The next packet. */
  async packet(): Promise<string> {
    for (;;) {
      const received = await this.next();
      if (received === undefined) throw new Error("the stub has hung up");
      if (received.kind !== "packet") continue;
      if (this.acks) this.raw("+");
      return received.data;
    }
  }

  /** Sends a packet and returns the next one that comes. */
  async ask(data: string): Promise<string> {
    this.send(data);
    return await this.packet();
  }

  /** A register's value, by its number. */
  async register(number: number): Promise<bigint> {
    const text = await this.ask(`p${number.toString(16)}`);
    return BigInt(`0x${text.match(/../g)!.reverse().join("")}`);
  }

  /** Hangs up. */
  async close(): Promise<void> {
    await this.#writer.close().catch(() => {});
    await this.served;
  }
}

async function* receive(
  stream: ReadableStream<Uint8Array>,
): AsyncGenerator<Received> {
  const reader = new PacketReader();
  for await (const chunk of stream) yield* reader.push(chunk);
}

/** A machine of the interpreter with a stub and a client. */
export interface Debugged {
  machine: Machine;
  stub: GdbStub;
  client: GdbClient;
  /** How the run ended. */
  run: Promise<MachineOutcome>;
}

/** A guest of `AA BB ; comment` lines at {@linkcode CODE}, or where `load` says, waiting for its first client. */
export function debugged(
  code: string,
  load: LoadOptions = {},
  options: Omit<GdbOptions, "machine"> = {},
): Debugged {
  const memory = new GuestMemory(0x20_0000);
  const machine = new Machine({ backend: interpreter(), memory });
  loadImage(memory, machine.vcpus[0]!, bytes(code), {
    address: CODE,
    mode: "protected",
    ...load,
  });
  const stub = new GdbStub({ machine, wait: true, ...options });
  const run = machine.run({ timeout: 20_000 });
  return { machine, stub, client: new GdbClient(stub), run };
}

/** Ends the guest and the connection of {@linkcode debugged}. */
export async function finish({ machine, client, run }: Debugged) {
  machine.stop({ kind: "aborted" });
  await run;
  await client.close();
  machine.close();
}
