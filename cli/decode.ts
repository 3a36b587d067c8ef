import type { DebugPeer } from "../hyperv/debug_transport.ts";
import {
  datagramJson,
  type DecodedDatagram,
  formatDatagram,
  KdnetDecoder,
} from "../hyperv/kd/decoder.ts";
import { readCapture } from "../hyperv/transports/capture.ts";
import { PcapWriter } from "../hyperv/transports/pcap.ts";
import { Relay } from "../hyperv/transports/relay.ts";
import { connectUdp } from "../hyperv/transports/udp_node.ts";
import { listenUdp } from "../hyperv/transports/udp_listen_node.ts";
import { openCapture, writeAll } from "./debug_options.ts";
import { helpText } from "./help.ts";
import { withInterrupt } from "./outcome.ts";
import {
  ExitCode,
  type Options,
  parseEndpoint,
  parseListen,
  parseOptions,
  UsageError,
} from "./usage.ts";

/** Datagrams that may wait to be printed; a flood beyond that passes unprinted. */
const MAX_WAITING = 1000;

/** Prints what is decoded, and counts. */
class Printer {
  datagrams = 0;
  opened = 0;
  foreign = 0;
  readonly #json: boolean;

  constructor(json: boolean) {
    this.#json = json;
  }

  /** Prints a datagram unless it is not KDNET. `place` says where it was seen. */
  print(
    place: Record<string, string | number | undefined>,
    datagram: DecodedDatagram,
  ): void {
    this.datagrams++;
    if (datagram.version === undefined) {
      this.foreign++;
      return;
    }
    if (datagram.sequence !== undefined) this.opened++;
    if (this.#json) {
      const start = JSON.stringify(place).slice(0, -1);
      console.log(`${start},${datagramJson(datagram).slice(1)}`);
      return;
    }
    const words = Object.values(place).filter((word) => word !== undefined);
    console.log(`${words.join(" ")} ${formatDatagram(datagram)}`);
  }

  /** Says on stderr what there was. */
  summary(): void {
    console.error(
      `syndbg: ${this.datagrams} datagrams, ${this.opened} opened, ` +
        `${this.foreign} not KDNET`,
    );
  }
}

/** Prints the KDNET datagrams of a capture, or of a live connection that it relays. */
export async function decodeCommand(args: readonly string[]): Promise<number> {
  const options = parseOptions("decode", args, {
    boolean: ["json"],
    string: ["key", "listen", "forward", "pcap"],
  });
  if (options.flag("help")) {
    console.log(helpText("decode"));
    return 0;
  }
  const [path, ...more] = options.positional;
  const live = options.value("listen") !== undefined;
  if (live === (path !== undefined) || more.length > 0) {
    throw new UsageError(
      "Cannot run decode: give one capture, or --listen and --forward",
    );
  }
  const decoder = await openDecoder(options.value("key"));
  const printer = new Printer(options.flag("json"));
  return live
    ? await relay(options, decoder, printer)
    : await decodeFile(path!, options, decoder, printer);
}

async function openDecoder(key: string | undefined): Promise<KdnetDecoder> {
  try {
    return await KdnetDecoder.create(key);
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function endpointText({ ipv4, port }: DebugPeer): string {
  const bytes = [24, 16, 8, 0].map((shift) => (ipv4 >>> shift) & 0xff);
  return `${bytes.join(".")}:${port}`;
}

async function decodeFile(
  path: string,
  options: Options,
  decoder: KdnetDecoder,
  printer: Printer,
): Promise<number> {
  for (const name of ["forward", "pcap"]) {
    if (options.value(name) !== undefined) {
      throw new UsageError(`Cannot use --${name}: there is no --listen`);
    }
  }
  let file: Uint8Array;
  try {
    file = await Deno.readFile(path);
  } catch (error) {
    throw new UsageError(`Cannot read ${path}: ${(error as Error).message}`);
  }
  let start: number | undefined;
  try {
    for (const { frame, time, from, to, payload } of readCapture(file)) {
      start ??= time;
      const seconds = time === undefined || start === undefined
        ? undefined
        : ((time - start) / 1000).toFixed(6);
      const place = options.flag("json")
        ? {
          frame,
          time,
          source: endpointText(from),
          destination: endpointText(to),
        }
        : {
          frame,
          seconds,
          way: `${endpointText(from)} > ${endpointText(to)}`,
        };
      printer.print(place, await decoder.decode(payload));
    }
  } catch (error) {
    if (error instanceof SyntaxError) {
      throw new UsageError(`${error.message} (${path})`);
    }
    throw error;
  }
  printer.summary();
  return ExitCode.Success;
}

async function relay(
  options: Options,
  decoder: KdnetDecoder,
  printer: Printer,
): Promise<number> {
  const listen = parseListen("listen", options.value("listen")!);
  const forward = options.value("forward");
  if (forward === undefined) {
    throw new UsageError("Cannot run decode: --listen needs --forward");
  }
  const to = parseEndpoint("forward", forward);
  const pcap = options.value("pcap");
  const file = pcap === undefined ? undefined : openCapture(pcap);
  const writer = file && new PcapWriter((bytes) => writeAll(file, bytes));
  try {
    const guest = await listenUdp(listen.host, listen.port);
    const host = await connectUdp(to.host, to.port).catch((error: Error) => {
      guest.close();
      throw error;
    });
    const start = performance.now();
    let printing = Promise.resolve();
    let waiting = 0;
    const tie = new Relay(guest, host, (data, toDebugger) => {
      writer?.write(data, toDebugger);
      if (waiting === MAX_WAITING) return;
      waiting++;
      const seconds = ((performance.now() - start) / 1000).toFixed(6);
      const way = toDebugger ? "guest > debugger" : "debugger > guest";
      const copy = data.slice();
      printing = printing.then(async () => {
        printer.print({ seconds, way }, await decoder.decode(copy));
        waiting--;
      });
    });
    console.error(
      `syndbg: relays ${listen.host}:${guest.port} to ${to.host}:${to.port}`,
    );
    await withInterrupt((signal) =>
      new Promise<void>((resolve) =>
        signal.addEventListener("abort", () => resolve())
      )
    );
    tie.close();
    await printing;
    guest.close();
    host.close();
    printer.summary();
    return ExitCode.Interrupted;
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(
      `Cannot relay ${listen.host}:${listen.port}: ${(error as Error).message}`,
    );
  } finally {
    file?.close();
  }
}
