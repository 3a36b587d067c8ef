/* From multiboot's protected mode to main() in the upper half, and the way into every handler. */

.file "boot.S"

.set BASE, 0xffffffff80000000
.set CODE, 8
.set DATA, 16

.section .boot, "ax"
.code32

.balign 4
header:
  .long 0x1badb002, 0x00010003, -(0x1badb002 + 0x00010003)
  .long header - BASE, image - BASE, data_end - BASE, image_end - BASE, start - BASE

/* EBX: where the boot information is. */
.global start
start:
  cld
  movl %ebx, %ebp
  /* The first GiB, at 0 and at BASE: one directory of pages of 2 MiB. */
  movl $(directory - BASE), %edi
  movl $0x83, %eax
  movl $512, %ecx
1:
  movl %eax, (%edi)
  movl $0, 4(%edi)
  addl $0x200000, %eax
  addl $8, %edi
  loop 1b
  movl $(low_pointers - BASE + 3), root - BASE
  movl $(high_pointers - BASE + 3), root - BASE + 511 * 8
  movl $(directory - BASE + 3), low_pointers - BASE
  movl $(directory - BASE + 3), high_pointers - BASE + 510 * 8
  movl %cr4, %eax
  orl $0x20, %eax
  movl %eax, %cr4
  movl $(root - BASE), %eax
  movl %eax, %cr3
  movl $0xc0000080, %ecx
  rdmsr
  orl $0x100, %eax
  wrmsr
  movl %cr0, %eax
  orl $0x80000001, %eax
  movl %eax, %cr0
  lgdt gdt_pointer - BASE
  ljmp $CODE, $(long_mode - BASE)

.code64
long_mode:
  movw $DATA, %ax
  movw %ax, %ds
  movw %ax, %es
  movw %ax, %ss
  xorl %eax, %eax
  movw %ax, %fs
  movw %ax, %gs
  movq $upper_half, %rax
  jmp *%rax

.text
upper_half:
  lgdt gdt_pointer_high
  movq $boot_stack_end, %rsp
  movl %ebp, %edi
  xorl %ebp, %ebp
  call main
  ud2

/* Saves all registers as struct kd_registers has them, and goes on with the frame that trap() gives. */
trap_entry:
  pushq %rax
  pushq %rbx
  pushq %rcx
  pushq %rdx
  pushq %rsi
  pushq %rdi
  pushq %rbp
  pushq %r8
  pushq %r9
  pushq %r10
  pushq %r11
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  cld
  movq %rsp, %rdi
  call trap
  movq %rax, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %r11
  popq %r10
  popq %r9
  popq %r8
  popq %rbp
  popq %rdi
  popq %rsi
  popq %rdx
  popq %rcx
  popq %rbx
  popq %rax
  addq $16, %rsp
  iretq

/* 48 handlers, 16 bytes each: a 0 where the CPU pushes no error code, and the vector. */
.balign 16
.global handlers
handlers:
.set vector, 0
.rept 48
  .balign 16
  .if vector != 8 && (vector < 10 || vector > 14) && vector != 17 && vector != 21 && vector != 29 && vector != 30
    pushq $0
  .endif
  pushq $vector
  jmp trap_entry
  .set vector, vector + 1
.endr

.section .rodata
.balign 8
gdt:
  .quad 0
  .quad 0x00af9b000000ffff
  .quad 0x00cf93000000ffff
gdt_end:
gdt_pointer:
  .word gdt_end - gdt - 1
  .long gdt - BASE
  .long 0
gdt_pointer_high:
  .word gdt_end - gdt - 1
  .quad gdt

.bss
.balign 4096
root: .skip 4096
low_pointers: .skip 4096
high_pointers: .skip 4096
directory: .skip 4096
boot_stack: .skip 16384
boot_stack_end:

.section .note.GNU-stack, "", @progbits
