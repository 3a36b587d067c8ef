import { interpreter } from "../core/x86/backend.ts";
import { hypervisorLeaves } from "../hyperv/leaves.ts";
import { formatLeaf } from "./cpuid_text.ts";
import { helpText } from "./help.ts";
import { parseChoice, parseOptions, UsageError } from "./usage.ts";

/** Prints the CPUID leaves that a guest would see. */
export function cpuidCommand(args: readonly string[]): number {
  const options = parseOptions("cpuid", args, {
    boolean: ["no-syndbg"],
    string: ["profile", "vendor"],
  });
  if (options.flag("help")) {
    console.log(helpText("cpuid"));
    return 0;
  }
  if (options.positional.length > 0) {
    throw new UsageError(
      `Cannot run cpuid: unexpected argument ${options.positional[0]}`,
    );
  }
  const profile = parseChoice("profile", options.value("profile") ?? "hyperv", [
    "hyperv",
    "kvm",
  ]);
  const leaves = [
    ...interpreter().supportedCpuid(),
    ...hypervisorLeaves({
      profile,
      vendor: options.value("vendor") ?? "Microsoft Hv",
      syndbg: !options.flag("no-syndbg"),
      vcpus: 1,
      apics: true,
      synic: true,
      tscInvariant: false,
    }),
  ].sort((a, b) => a.leaf - b.leaf || (a.subleaf ?? 0) - (b.subleaf ?? 0));
  for (const leaf of leaves) console.log(formatLeaf(leaf));
  return 0;
}
