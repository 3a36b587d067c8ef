import type { CpuidEntry, VmHost } from "../core/backend.ts";
import type { GuestMemory } from "../core/guest_memory.ts";
import { ownCpuid, readCpuid } from "./cpuid_codec.ts";
import { HYPERCALL_CODE } from "./hypercall_trap.ts";
import { KvmFile, KvmUnavailable, openDevice } from "./kvm_file.ts";
import { API_VERSION, Cap, Ioctl } from "./kvm_layout.ts";
import { listMsrs, readMsrs } from "./kvm_msrs.ts";
import type {
  HypervMode,
  KvmBackend,
  KvmFacts,
  KvmOptions,
  KvmVm,
} from "./kvm_options.ts";
import { KvmVirtualMachine } from "./kvm_vm.ts";
import type { SystemCalls } from "./system_calls.ts";

/** What every VM of ours uses; all of it is in Linux 5.10. */
const REQUIRED = [
  "UserMemory",
  "ExtCpuid",
  "MpState",
  "VcpuEvents",
  "Debugregs",
  "Xsave",
  "Xcrs",
  "ImmediateExit",
  "X86UserSpaceMsr",
  "X86MsrFilter",
] as const;

const MSR_TSC = 0x10;
const STACK_PROPERTIES = 0x4000_0082;
const STACK_DEBUGGING = 2;

/** Whether the kernel has a capability. */
function hasCap(kvm: KvmFile, cap: keyof typeof Cap): boolean {
  return kvm.system.ioctl(kvm.fd, Ioctl.CheckExtension, Cap[cap]) > 0;
}

/** TSC ticks a second where the kernel does not tell: two looks at a vCPU's TSC, a few milliseconds apart. */
function measureTsc(vcpu: KvmFile): number {
  const look = (): [number, bigint] => [
    performance.now(),
    readMsrs(vcpu, [MSR_TSC])[0]?.[1] ?? 0n,
  ];
  const [start, first] = look();
  let [now, last] = look();
  while (now - start < 10) [now, last] = look();
  return Math.round(Number(last - first) / (now - start)) * 1000;
}

/** What only a vCPU tells. */
interface VcpuFacts {
  tscFrequency: number;
  hypervCpuid: CpuidEntry[] | undefined;
}

/** Asks a vCPU that is made for it. */
function askVcpu(kvm: KvmFile): VcpuFacts {
  const { system } = kvm;
  const vm = new KvmFile(system, kvm.call("create VM", "CreateVm"));
  try {
    const vcpu = new KvmFile(
      system,
      vm.call("create vCPU", "CreateVcpu", 0),
    );
    try {
      const kilohertz = hasCap(kvm, "GetTscKhz")
        ? system.ioctl(vcpu.fd, Ioctl.GetTscKhz, 0)
        : -1;
      return {
        tscFrequency: kilohertz > 0 ? kilohertz * 1000 : measureTsc(vcpu),
        hypervCpuid: hasCap(kvm, "Hyperv")
          ? readCpuid(vcpu, "GetSupportedHvCpuid")
          : undefined,
      };
    } finally {
      vcpu.close();
    }
  } finally {
    vm.close();
  }
}

/** Asks the kernel for all that its VMs have in common. */
function askKernel(system: SystemCalls): KvmFacts {
  const kvm = openDevice(system);
  try {
    const version = system.ioctl(kvm.fd, Ioctl.GetApiVersion, 0);
    if (version !== API_VERSION) {
      throw new KvmUnavailable(
        `/dev/kvm speaks version ${version} of its interface, not ${API_VERSION}: load kvm_amd or kvm_intel of a Linux kernel`,
      );
    }
    const missing = REQUIRED.filter((cap) => !hasCap(kvm, cap));
    if (missing.length > 0) {
      throw new KvmUnavailable(
        `the kernel's KVM is too old, it lacks ${
          missing.join(", ")
        }: Linux 5.10 or later is needed`,
      );
    }
    return {
      runSize: kvm.call("ask KVM", "GetVcpuMmapSize"),
      msrs: listMsrs(kvm),
      cpuid: ownCpuid(readCpuid(kvm, "GetSupportedCpuid")),
      enforcesPvCpuid: hasCap(kvm, "EnforcePvFeatureCpuid"),
      enforcesHypervCpuid: hasCap(kvm, "HypervEnforceCpuid"),
      wantsTssAddress: hasCap(kvm, "SetTssAddr") &&
        hasCap(kvm, "SetIdentityMapAddr"),
      ...askVcpu(kvm),
    };
  } finally {
    kvm.close();
  }
}

/** Whether KVM's own Hyper-V has the synthetic debugger. */
function hasSyndbg(leaves: readonly CpuidEntry[] | undefined): boolean {
  const properties = leaves?.find(({ leaf }) => leaf === STACK_PROPERTIES);
  return ((properties?.eax ?? 0) & STACK_DEBUGGING) !== 0;
}

/**
 * Makes the backend over a system's calls. It keeps nothing open; each VM does until it is closed.
 *
 * @throws {KvmUnavailable} If KVM cannot be used as the options say.
 */
export function createKvmBackend(
  system: SystemCalls,
  options: KvmOptions = {},
): KvmBackend {
  const facts = askKernel(system);
  const hyperv = options.hyperv ?? {};
  const kernel = hasSyndbg(facts.hypervCpuid);
  const mode: HypervMode = (hyperv.mode ?? "auto") === "auto"
    ? (kernel ? "kernel" : "user")
    : hyperv.mode as HypervMode;
  if (mode === "kernel" && !kernel) {
    throw new KvmUnavailable(
      "the kernel's KVM has no Hyper-V with a synthetic debugger (CONFIG_KVM_HYPERV, Linux 5.8): use mode user",
    );
  }
  if (mode === "kernel" && hyperv.enforceCpuid && !facts.enforcesHypervCpuid) {
    throw new KvmUnavailable(
      "the kernel's KVM cannot enforce Hyper-V's CPUID: Linux 5.14 or later is needed",
    );
  }
  return {
    name: "kvm",
    hyperv: mode,
    hypercallCode: mode === "user" ? new Uint8Array(HYPERCALL_CODE) : undefined,
    tscFrequency: facts.tscFrequency,
    apicMsrs: false,
    supportedCpuid: (): CpuidEntry[] =>
      facts.cpuid.map((entry) => ({ ...entry })),
    createVm: (memory: GuestMemory, host: VmHost): KvmVm =>
      new KvmVirtualMachine(system, facts, mode, hyperv, memory, host),
  };
}
