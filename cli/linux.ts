import { installAcpi } from "../core/acpi/tables.ts";
import { attachVirtio } from "../core/devices/virtio/attach.ts";
import { VirtioBlock } from "../core/devices/virtio/block.ts";
import { VirtioEntropy } from "../core/devices/virtio/entropy.ts";
import { loadLinux } from "../core/loaders/linux.ts";
import type { Machine } from "../core/machine.ts";
import { openDisk } from "./disk.ts";
import { type GuestImage, loadOrRefuse, readImage } from "./image_file.ts";
import { enterRawMode, ESCAPE_HELP, EscapeFilter } from "./terminal.ts";
import { type Options, UsageError } from "./usage.ts";

/** Options that only other images have. */
const FOREIGN = ["module", "address", "entry", "entry-mode"];

/**
 * Reads the kernel that `--linux` names, and its RAM disk. They come with virtio devices and with the
 * machine's ACPI tables, which tell of those.
 *
 * @throws {UsageError} If they cannot be read, or options do not go with them.
 */
export function linuxImage(options: Options): GuestImage {
  const wrong = FOREIGN.find((name) => options.values(name).length > 0);
  if (wrong !== undefined || options.positional.length > 0) {
    throw new UsageError(
      `Cannot use --linux with ${
        wrong === undefined ? options.positional[0] : `--${wrong}`
      }`,
    );
  }
  const data = readImage(options.value("linux")!);
  const initrd = options.value("initrd");
  const settings = {
    commandLine: options.value("append") ?? "console=ttyS0",
    ...(initrd !== undefined && { initrd: readImage(initrd) }),
  };
  const disks = options.values("disk").map(openDisk);
  return {
    name: options.value("linux")!,
    data,
    load: ({ machine, memory }) =>
      loadOrRefuse(() => {
        loadLinux(memory, machine.vcpus[0]!, data, settings);
        const virtio = attachVirtio(machine, memory, [
          new VirtioEntropy(),
          ...disks.map((disk, n) => new VirtioBlock(disk, `disk${n}`)),
        ]);
        installAcpi(memory, { cpus: machine.vcpus.length, virtio });
      }),
  };
}

/**
 * Makes standard input and output the guest's console: each key goes to it as it is pressed,
 * Ctrl-A x leaves. The function that comes back gives the terminal back.
 */
export function openConsole(machine: Machine): () => void {
  const keys = new EscapeFilter({
    leave: () => machine.stop({ kind: "exit", code: 0 }),
    help: () => console.error(ESCAPE_HELP),
  });
  const leaveRawMode = enterRawMode();
  forwardInput(machine, (input) => keys.filter(input));
  return () => leaveRawMode?.();
}

/** Sends standard input to the guest's serial port, as long as there is some. */
export async function forwardInput(
  machine: Machine,
  filter: (input: Uint8Array) => Uint8Array = (input) => input,
): Promise<void> {
  const buffer = new Uint8Array(1024);
  for (;;) {
    const count = await Deno.stdin.read(buffer);
    if (count === null) return;
    machine.sendSerial(filter(buffer.slice(0, count)));
  }
}
