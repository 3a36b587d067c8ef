import { loadImage } from "../core/loaders/load_image.ts";
import type { MachineOutcome } from "../core/machine.ts";
import { createGuestMachine } from "../hyperv/guest_machine.ts";
import { TeeTransport } from "../hyperv/transports/tee.ts";
import { connectUdp } from "../hyperv/transports/udp_node.ts";
import { BACKEND_OPTIONS, openBackend } from "./backends.ts";
import { ConsoleOutput } from "./console_output.ts";
import { DemoPeer } from "./demo_peer.ts";
import { demoGuest } from "./guests/demo_guest.ts";
import { helpText } from "./help.ts";
import { hexDump } from "./hex_dump.ts";
import { reportOutcome, withInterrupt } from "./outcome.ts";
import { TracePrinter } from "./trace_printer.ts";
import { ExitCode, parseChoice, parseOptions, UsageError } from "./usage.ts";

/** The demo guest takes milliseconds; this is for a machine that is very busy. */
const TIMEOUT = 20_000;
/** Bytes of a packet that are printed. */
const SHOWN_BYTES = 256;

/** What went over the wire in one direction. */
interface Count {
  packets: number;
  bytes: number;
}

/** Boots the built-in guest against a debugger's end in this process. */
export async function demoCommand(args: readonly string[]): Promise<number> {
  const options = parseOptions("demo", args, {
    string: [...BACKEND_OPTIONS, "mode", "profile"],
  });
  if (options.flag("help")) {
    console.log(helpText("demo"));
    return 0;
  }
  if (options.positional.length > 0) {
    throw new UsageError(
      `Cannot run demo: unexpected argument ${options.positional[0]}`,
    );
  }
  const mode = parseChoice("mode", options.value("mode") ?? "msr", [
    "msr",
    "hypercall",
  ]);
  const profile = parseChoice("profile", options.value("profile") ?? "hyperv", [
    "hyperv",
    "kvm",
  ]);
  const { backend, note } = openBackend(options);
  const start = performance.now();
  const output = new ConsoleOutput(Deno.stdout);
  const out: Count = { packets: 0, bytes: 0 };
  const back: Count = { packets: 0, bytes: 0 };
  const tracer = new TracePrinter((line) => {
    output.flush();
    console.log(`trace  ${line}`);
  });
  const say = (text: string): void => {
    tracer.flush();
    output.flush();
    console.log(text);
  };

  const peer = await DemoPeer.start();
  const transport = new TeeTransport(
    await connectUdp("127.0.0.1", peer.port),
    (data, toDebugger) => {
      const count = toDebugger ? out : back;
      count.packets++;
      count.bytes += data.length;
      const way = toDebugger ? "guest -> debugger" : "debugger -> guest";
      say(`packet ${way}, ${data.length} bytes`);
      say(hexDump(data.subarray(0, SHOWN_BYTES), "  "));
      const rest = data.length - SHOWN_BYTES;
      if (rest > 0) say(`  ... ${rest} bytes more`);
    },
  );
  say(
    `backend ${backend.name}, mode ${mode}, profile ${profile}, ` +
      `debugger on 127.0.0.1:${peer.port}`,
  );
  if (note !== undefined) say(note);
  const { machine, memory } = createGuestMachine({
    backend,
    profile,
    syndbg: { transport, mode },
    onOutput: (byte) => {
      if (output.empty) tracer.flush();
      output.write(byte);
    },
    trace: (event) => tracer.trace(event),
  });
  try {
    loadImage(memory, machine.vcpus[0]!, demoGuest());
    const outcome = await withInterrupt((signal) =>
      machine.run({ timeout: TIMEOUT, signal })
    );
    const time = Math.round(performance.now() - start);
    say(
      `summary: ${count(out)} sent, ${count(back)} received, ` +
        `${peer.answered} answered by the debugger, ${tracer.events} trace events, ` +
        `guest ${outcomeText(outcome)}, ${time} ms`,
    );
    // The guest halts when it has done its work, and exits with a code when it could not.
    if (outcome.kind !== "halted") return reportOutcome(machine, outcome);
    return back.packets > 0 ? ExitCode.Success : ExitCode.Failure;
  } finally {
    machine.close();
    transport.close();
    await peer.close();
  }
}

function count({ packets, bytes }: Count): string {
  return `${packets} ${packets === 1 ? "packet" : "packets"} (${bytes} bytes)`;
}

function outcomeText(outcome: MachineOutcome): string {
  return outcome.kind === "exit"
    ? `exit code ${outcome.code}`
    : `ended by ${outcome.kind}`;
}
