/**
 * A machine whose KVM is a real one, on any host: QEMU emulates an AMD processor with SVM, Debian's cloud kernel runs on
 * it with its own KVM modules and with Hyper-V in them, and tests run in that.
 *
 * @module
 */

/** Where the kernel and the image are kept, outside the repository. */
const CACHE = Deno.env.get("SYNDBG_NESTED_CACHE") ??
  `${Deno.env.get("TMPDIR") ?? "/tmp"}/syndbg-nested`;
const ROOT = new URL("../../../", import.meta.url).pathname;
const MODULES = [
  "virt/lib/irqbypass.ko",
  "arch/x86/kvm/kvm.ko",
  "arch/x86/kvm/kvm-amd.ko",
];
/** What of the repository the tests inside need. */
const PARTS = ["deno.json", "mod.ts", "core", "hyperv", "ffi", "cli", "tests"];
const TOOLS = ["qemu-system-x86_64", "busybox", "cpio", "ldd", "dpkg"];
const PACKAGE = /^linux-image-\S+-cloud-amd64-unsigned\b/;

/** Something that the machine is made of is not there. */
export class PartMissing extends Error {
  override name = "PartMissing";
}

/** Runs a program to its end: what it printed. */
async function run(
  program: string,
  args: readonly string[],
  cwd: string = ROOT,
): Promise<string> {
  try {
    const { success, stdout, stderr } = await new Deno.Command(program, {
      args: [...args],
      cwd,
    }).output();
    if (success) return new TextDecoder().decode(stdout);
    throw new PartMissing(
      `${program} ${args[0]} fails: ${
        new TextDecoder().decode(stderr).trim().split("\n").at(-1)
      }`,
    );
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new PartMissing(`${program} is missing`);
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch {
    return false;
  }
}

/** Where a program is. */
async function find(program: string): Promise<string> {
  for (const folder of (Deno.env.get("PATH") ?? "").split(":")) {
    if (await exists(`${folder}/${program}`)) return `${folder}/${program}`;
  }
  throw new PartMissing(`${program} is missing`);
}

/** Debian's kernel with its modules, unpacked: the folder. */
async function fetchKernel(): Promise<string> {
  const found = await run("apt-cache", [
    "search",
    "--names-only",
    "linux-image.*cloud-amd64-unsigned",
  ]);
  const names = found.split("\n").map((line) => PACKAGE.exec(line)?.[0])
    .filter((name) => name !== undefined)
    .sort(new Intl.Collator("en", { numeric: true }).compare);
  const name = names.at(-1);
  if (name === undefined) {
    throw new PartMissing(
      "no package linux-image-*-cloud-amd64-unsigned (apt-get update helps)",
    );
  }
  const folder = `${CACHE}/${name}`;
  if (await exists(folder)) return folder;
  const work = await Deno.makeTempDir({ dir: CACHE });
  try {
    await run("apt-get", ["download", "-q", name], work);
    const [file] = [...Deno.readDirSync(work)];
    if (file === undefined) throw new PartMissing(`${name} does not download`);
    await run("dpkg", ["-x", file.name, "unpacked"], work);
    await Deno.rename(`${work}/unpacked`, folder);
  } finally {
    await Deno.remove(work, { recursive: true });
  }
  return folder;
}

/** The one entry of a folder that matches. */
async function entry(folder: string, pattern: RegExp): Promise<string> {
  for await (const { name } of Deno.readDir(folder)) {
    if (pattern.test(name)) return `${folder}/${name}`;
  }
  throw new PartMissing(`the kernel's package has no ${pattern.source}`);
}

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
  await Deno.mkdir(CACHE, { recursive: true });
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
  timeout = 300,
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
