import type { DebugTransport } from "../hyperv/debug_transport.ts";
import { PcapWriter } from "../hyperv/transports/pcap.ts";
import { TeeTransport } from "../hyperv/transports/tee.ts";
import { listenUdp } from "../hyperv/transports/udp_listen_node.ts";
import { commandHelp } from "./debug/commands.ts";
import { runConsole } from "./debug/console.ts";
import { openCapture, parseKey, writeAll } from "./debug_options.ts";
import { helpText } from "./help.ts";
import { readImage } from "./image_file.ts";
import {
  parseDuration,
  parseListen,
  parseOptions,
  UsageError,
} from "./usage.ts";

/** Debugs a KDNET target from a console; returns the exit code. */
export async function debugCommand(args: readonly string[]): Promise<number> {
  const options = parseOptions("debug", args, {
    boolean: ["json", "break"],
    string: ["listen", "key", "command", "timeout", "pcap"],
    collect: ["symbols"],
    alias: { c: "command", b: "break" },
  });
  if (options.flag("help")) {
    console.log(`${helpText("debug")}\n\nCommands:\n${commandHelp()}`);
    return 0;
  }
  const [unexpected] = options.positional;
  if (unexpected !== undefined) {
    throw new UsageError(`Cannot run debug: unexpected argument ${unexpected}`);
  }
  const key = options.value("key");
  if (key === undefined) throw new UsageError("Cannot run debug: give --key");
  parseKey(key);
  const { host, port } = parseListen(
    "listen",
    options.value("listen") ?? "0.0.0.0:50000",
  );
  const timeout = options.value("timeout");
  const limit = timeout === undefined
    ? undefined
    : parseDuration("timeout", timeout);
  const commands = options.value("command");
  const symbols = options.values("symbols").map((path) => ({
    name: path.replace(/^.*\//, ""),
    data: readImage(path),
  }));
  const pcap = options.value("pcap");
  const file = pcap === undefined ? undefined : openCapture(pcap);
  try {
    const listener = await listenUdp(host, port).catch((error: Error) => {
      throw new UsageError(
        `Cannot listen at ${host}:${port}: ${error.message}`,
      );
    });
    const writer = file && new PcapWriter((bytes) => writeAll(file, bytes));
    const transport: DebugTransport = writer
      // What this end sends goes to the guest.
      ? new TeeTransport(listener, (data, out) => writer.write(data, !out))
      : listener;
    console.error(`syndbg: waits for a target at ${host}:${listener.port}`);
    try {
      return await runConsole({
        transport,
        key,
        json: options.flag("json"),
        symbols,
        breakIn: options.flag("break"),
        ...(commands !== undefined && { commands }),
        ...(limit !== undefined && { timeout: limit }),
      });
    } finally {
      listener.close();
    }
  } finally {
    file?.close();
  }
}
