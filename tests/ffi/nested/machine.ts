/**
 * A machine whose KVM is a real one, on any host: QEMU emulates an AMD processor with SVM, Debian's cloud kernel runs on
 * it with its own KVM modules and with Hyper-V in them, and tests run in that.
 *
 * @module
 */
import {
  CACHE,
  entry,
  exists,
  fetchKernel,
  find,
  PartMissing,
  run,
} from "../../_debian_kernel.ts";

export { PartMissing };

const ROOT = new URL("../../../", import.meta.url).pathname;
const MODULES = [
  "virt/lib/irqbypass.ko",
  "arch/x86/kvm/kvm.ko",
  "arch/x86/kvm/kvm-amd.ko",
];
/** What of the repository the tests inside need. */
const PARTS = ["deno.json", "mod.ts", "core", "hyperv", "ffi", "cli", "tests"];
const TOOLS = ["qemu-system-x86_64", "busybox", "cpio", "ldd", "dpkg"];

/** Puts the first process, busybox, Deno, its libraries and the repository into a folder. */
async function fill(root: string, kernel: string): Promise<void> {
  for (const folder of ["bin", "modules", "repo", "deno"]) {
    await Deno.mkdir(`${root}/${folder}`);
  }
  await Deno.copyFile(await find("busybox"), `${root}/bin/busybox`);
  await Deno.copyFile(Deno.execPath(), `${root}/bin/deno`);
  const init = new URL("init.sh", import.meta.url);
  await Deno.copyFile(init, `${root}/init`);
  for (const program of ["bin/busybox", "bin/deno", "init"]) {
    await Deno.chmod(`${root}/${program}`, 0o755);
  }
  const modules = await entry(`${kernel}/lib/modules`, /./);
  for (const module of MODULES) {
    const name = module.split("/").at(-1)!;
    const source = `${modules}/kernel/${module}`;
    // Newer kernels have them compressed.
    const packed = await exists(`${source}.xz`);
    await Deno.copyFile(
      packed ? `${source}.xz` : source,
      `${root}/modules/${name}${packed ? ".xz" : ""}`,
    );
    if (packed) await run("busybox", ["unxz", `${root}/modules/${name}.xz`]);
  }
  const libraries = await run("ldd", [Deno.execPath()]);
  for (const [, path] of libraries.matchAll(/(\/\S+\.so\S*) \(/g)) {
    const target = root + path!;
    await Deno.mkdir(target.replace(/\/[^/]*$/, ""), { recursive: true });
    await Deno.copyFile(path!, target);
  }
  await run("cp", [
    "-r",
    ...PARTS.map((part) => ROOT + part),
    `${root}/repo/`,
  ]);
}

/** What the machine boots. */
export interface NestedImage {
  kernel: string;
  initramfs: string;
}

/**
 * Makes what the machine boots. The kernel is fetched once.
 *
 * @throws {PartMissing} If something is missing that it is made of.
 */
export async function buildImage(): Promise<NestedImage> {
  for (const tool of TOOLS) await find(tool);
  const kernel = await fetchKernel();
  const root = await Deno.makeTempDir({ dir: CACHE });
  try {
    await fill(root, kernel);
    const initramfs = `${CACHE}/initramfs.cpio`;
    await run("sh", [
      "-c",
      `find . | cpio --quiet -o -H newc > '${initramfs}.new' && mv '${initramfs}.new' '${initramfs}'`,
    ], root);
    return { kernel: await entry(`${kernel}/boot`, /^vmlinuz/), initramfs };
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}

/** How a test inside ended. */
export interface NestedResult {
  name: string;
  outcome: "ok" | "failed" | "skipped";
}

/** What came over the serial console. */
export interface NestedRun {
  results: NestedResult[];
  /** Exit code of `deno test` inside; undefined if it never came. */
  code: number | undefined;
  /** Everything, for whoever looks for a failure. */
  console: string;
}

/**
 * Boots the machine, which runs tests and powers off.
 *
 * @param tests Files and folders, from the repository's root.
 * @param timeout Seconds.
 */
export async function bootNested(
  image: NestedImage,
  tests: readonly string[],
  timeout = 480,
): Promise<NestedRun> {
  const signal = AbortSignal.timeout(timeout * 1000);
  const { stdout, stderr } = await new Deno.Command("qemu-system-x86_64", {
    args: [
      ...["-accel", "tcg,thread=multi", "-cpu", "EPYC-v3,+svm"],
      // One processor: QEMU loses changes that another makes to the kernel's code, and the kernel dies of it.
      ...["-M", "q35", "-smp", "1", "-m", "1536"],
      ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
      ...["-serial", "stdio"],
      ...["-kernel", image.kernel, "-initrd", image.initramfs],
      "-append",
      `console=ttyS0 loglevel=1 panic=-1 mitigations=off tests=${
        tests.join(",")
      }`,
    ],
    stdin: "null",
    signal,
  }).output();
  const decoder = new TextDecoder();
  return readConsole(decoder.decode(stdout), decoder.decode(stderr));
}

/** Takes the lines of TAP out of a console's text. */
export function readConsole(text: string, errors: string): NestedRun {
  const results: NestedResult[] = [];
  let code: number | undefined;
  for (const line of text.split(/\r?\n/)) {
    const test = /^(not )?ok \d+ - (.*?)( # SKIP.*)?$/.exec(line);
    if (test !== null) {
      results.push({
        name: test[2]!,
        outcome: test[3] !== undefined ? "skipped" : test[1] ? "failed" : "ok",
      });
    }
    const end = /^nested: exit (\d+)/.exec(line);
    if (end !== null) code = Number(end[1]);
  }
  return { results, code, console: `${errors}\n${text}` };
}
