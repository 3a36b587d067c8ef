import type { DebugTransport } from "../hyperv/debug_transport.ts";
import { parseKdnetKey } from "../hyperv/kd/key.ts";
import { memoryPair } from "../hyperv/transports/memory_pair.ts";
import { NullTransport } from "../hyperv/transports/null.ts";
import { PcapWriter } from "../hyperv/transports/pcap.ts";
import { TeeTransport } from "../hyperv/transports/tee.ts";
import { connectUdp } from "../hyperv/transports/udp_node.ts";
import { parseEndpoint, UsageError } from "./usage.ts";

/** Milliseconds that a datagram may take from the transport to the network. */
const LINGER = 10;

/** The key of `--debug kd` without one. */
const DEFAULT_KEY = "1.2.3.4";

/** What the `--debug` options open. */
export interface DebugWire {
  /** Where the guest's packets go. */
  transport: DebugTransport;
  /** Whether there is a debugger at the other end, or may be. */
  debugger: boolean;
  /** With `kd`: the other end, for a console in this process. */
  console?: { transport: DebugTransport; key: string };
  /** Lets what was sent last go out, then closes sockets and files. */
  close(): Promise<void>;
}

/** Opens a capture for writing. @throws {UsageError} If that cannot be. */
export function openCapture(path: string): Deno.FsFile {
  try {
    return Deno.openSync(path, { write: true, create: true, truncate: true });
  } catch (error) {
    throw new UsageError(
      `Cannot write capture ${path}: ${(error as Error).message}`,
    );
  }
}

/** Writes all of `data`, which a pipe may take in pieces. */
export function writeAll(file: Deno.FsFile, data: Uint8Array): void {
  for (let at = 0; at < data.length;) at += file.writeSync(data.subarray(at));
}

/** Checks a KDNET key. @throws {UsageError} If it is none. */
export function parseKey(text: string): string {
  try {
    parseKdnetKey(text);
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
  return text;
}

async function openUdp(text: string): Promise<DebugTransport> {
  const { host, port } = parseEndpoint("debug", text);
  try {
    return await connectUdp(host, port);
  } catch (error) {
    throw new UsageError(
      `Cannot use --debug udp:${text}: ${(error as Error).message}`,
    );
  }
}

/**
 * Opens what `--debug` names: at most one `udp:HOST:PORT` or `kd[:KEY]`, any number of `pcap:FILE`, or `none`.
 *
 * @throws {UsageError} If one is not understood or cannot be opened.
 */
export async function openDebug(
  options: readonly string[],
): Promise<DebugWire> {
  let udp: string | undefined;
  let key: string | undefined;
  const paths: string[] = [];
  for (const option of options) {
    const [, kind, rest = ""] = /^(udp|kd|pcap|none)(?::(.*))?$/.exec(
      option,
    ) ?? [];
    const first = udp === undefined && key === undefined;
    if (kind === "udp" && first) udp = rest;
    else if (kind === "kd" && first) key = parseKey(rest || DEFAULT_KEY);
    else if (kind === "pcap" && rest !== "") paths.push(rest);
    else if (kind !== "none" || rest !== "" || options.length > 1) {
      throw new UsageError(
        `Cannot use --debug ${option}: must be one udp:HOST:PORT or kd[:KEY], pcap:FILE or none`,
      );
    }
  }
  const files: Deno.FsFile[] = [];
  let transport: DebugTransport = new NullTransport();
  let console: DebugWire["console"];
  const close = async (): Promise<void> => {
    if (udp !== undefined) {
      await new Promise<void>((resolve) => setTimeout(resolve, LINGER));
    }
    transport.close();
    for (const file of files) file.close();
  };
  try {
    if (udp !== undefined) transport = await openUdp(udp);
    if (key !== undefined) {
      const [guest, host] = memoryPair();
      transport = guest;
      console = { transport: host, key };
    }
    for (const path of paths) {
      const file = openCapture(path);
      files.push(file);
      const writer = new PcapWriter((bytes) => writeAll(file, bytes));
      transport = new TeeTransport(
        transport,
        (data, toDebugger) => writer.write(data, toDebugger),
      );
    }
  } catch (error) {
    await close();
    throw error;
  }
  return {
    transport,
    debugger: udp !== undefined || console !== undefined,
    close,
    ...(console && { console }),
  };
}
