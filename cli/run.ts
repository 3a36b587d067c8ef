import { loadImage, type LoadOptions } from "../core/loaders/load_image.ts";
import type { Machine } from "../core/machine.ts";
import {
  createGuestMachine,
  type GuestMachine,
  type GuestMachineOptions,
} from "../hyperv/guest_machine.ts";
import { formatTrace, traceJson, type TraceSink } from "../hyperv/trace.ts";
import { openBackend } from "./backends.ts";
import { ConsoleOutput } from "./console_output.ts";
import { openDebug } from "./debug_options.ts";
import { demoGuest } from "./guests/demo_guest.ts";
import { targetGuest } from "./guests/target_guest.ts";
import { helpText } from "./help.ts";
import { reportOutcome, withInterrupt } from "./outcome.ts";
import {
  type Options,
  parseAddress,
  parseChoice,
  parseDuration,
  parseOptions,
  parseSize,
  UsageError,
} from "./usage.ts";

/** The guests that are built in. */
const GUESTS = { demo: demoGuest, target: targetGuest };

/** Runs a guest image; returns the exit code. */
export async function runCommand(args: readonly string[]): Promise<number> {
  const options = parseOptions("run", args, {
    boolean: ["no-syndbg", "enforce-cpuid"],
    string: [
      "backend",
      "guest",
      "memory",
      "mode",
      "profile",
      "timeout",
      "address",
      "entry",
      "entry-mode",
      "append",
    ],
    collect: ["debug", "module"],
    optional: { trace: "text" },
  });
  if (options.flag("help")) {
    console.log(helpText("run"));
    return 0;
  }
  const [path, ...more] = options.positional;
  if (more.length > 0) {
    throw new UsageError(`Cannot run ${path}: unexpected argument ${more[0]}`);
  }
  const builtIn = options.value("guest");
  if (path !== undefined && builtIn !== undefined) {
    throw new UsageError(`Cannot run ${path}: --guest ${builtIn} is given too`);
  }
  const timeout = options.value("timeout");
  const limit = timeout === undefined
    ? Infinity
    : parseDuration("timeout", timeout);
  const output = new ConsoleOutput(Deno.stdout);
  const image = path === undefined
    ? GUESTS[parseChoice("guest", builtIn ?? "demo", ["demo", "target"])]()
    : readImage(path);
  const settings = machineSettings(options, output);
  const load = loadSettings(options);
  const wire = await openDebug(options.values("debug"));
  try {
    const guest = build({
      ...settings,
      ...(!options.flag("no-syndbg") && {
        syndbg: {
          transport: wire.transport,
          mode: parseChoice("mode", options.value("mode") ?? "msr", [
            "msr",
            "hypercall",
          ]),
        },
      }),
    });
    try {
      load(guest, image);
      forwardInput(guest.machine);
      const outcome = await withInterrupt((signal) =>
        guest.machine.run({ timeout: limit, signal })
      );
      output.flush();
      return reportOutcome(guest.machine, outcome);
    } finally {
      guest.machine.close();
    }
  } finally {
    await wire.close();
  }
}

function machineSettings(
  options: Options,
  output: ConsoleOutput,
): GuestMachineOptions {
  const trace = traceSink(options.value("trace"));
  return {
    backend: openBackend(options.value("backend") ?? "auto"),
    memorySize: parseSize("memory", options.value("memory") ?? "64M"),
    profile: parseChoice("profile", options.value("profile") ?? "hyperv", [
      "hyperv",
      "kvm",
    ]),
    enforceCpuid: options.flag("enforce-cpuid"),
    onOutput: (byte) => output.write(byte),
    onCrash: ({ parameters, message }) => {
      const words = parameters.map((word) => `0x${word.toString(16)}`);
      console.error(`syndbg: guest crash: ${words.join(" ")}`);
      if (message !== undefined) console.error(message);
    },
    ...(trace && { trace }),
  };
}

/** Makes the machine; sizes that cannot be had are the user's error. */
function build(options: GuestMachineOptions): GuestMachine {
  try {
    return createGuestMachine(options);
  } catch (error) {
    if (error instanceof RangeError) throw new UsageError(error.message);
    throw error;
  }
}

/** Checks the loader's options; what comes back loads an image with them. */
function loadSettings(
  options: Options,
): (guest: GuestMachine, image: Uint8Array) => void {
  const settings: LoadOptions = {
    commandLine: options.value("append") ?? "",
    modules: options.values("module").map((path) => ({
      data: readImage(path),
      text: path,
    })),
  };
  const address = options.value("address");
  if (address !== undefined) {
    settings.address = parseAddress("address", address);
  }
  const entry = options.value("entry");
  if (entry !== undefined) settings.entry = parseAddress("entry", entry);
  const mode = options.value("entry-mode");
  if (mode !== undefined) {
    settings.mode = parseChoice("entry-mode", mode, [
      "real",
      "protected",
      "long",
    ]);
  }
  return ({ machine, memory }, image) => {
    try {
      loadImage(memory, machine.vcpus[0]!, image, settings);
    } catch (error) {
      if (error instanceof SyntaxError || error instanceof RangeError) {
        throw new UsageError(error.message);
      }
      throw error;
    }
  };
}

function readImage(path: string): Uint8Array {
  try {
    if (!Deno.statSync(path).isFile) {
      throw new UsageError(`Cannot read ${path}: not a file`);
    }
    return Deno.readFileSync(path);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`Cannot read ${path}: ${(error as Error).message}`);
  }
}

function traceSink(format: string | undefined): TraceSink | undefined {
  if (format === undefined) return undefined;
  const print = parseChoice("trace", format, ["text", "json"]) === "json"
    ? traceJson
    : formatTrace;
  return (event) => console.error(print(event));
}

/** Sends standard input to the guest's serial port, as long as there is some. */
async function forwardInput(machine: Machine): Promise<void> {
  const buffer = new Uint8Array(1024);
  for (;;) {
    const count = await Deno.stdin.read(buffer);
    if (count === null) return;
    machine.sendSerial(buffer.slice(0, count));
  }
}
