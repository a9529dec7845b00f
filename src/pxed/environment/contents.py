"""What the imaging environment is made of: packages, programs, kernel modules. Everything else is left out.

These lists are the whole of what is shipped. Shared libraries, the modules that a listed module needs, and the
firmware files that a shipped module names are found by the builder and need no row here.
"""

__all__ = [
    "AGENT_DISTRIBUTIONS",
    "AGENT_MODULES",
    "DISTRIBUTION_LEFT_OUT",
    "EARLY_MODULES",
    "FIRMWARE_LEFT_OUT",
    "FIRMWARE_PACKAGES",
    "MODULES",
    "MODULES_LEFT_OUT",
    "MODULE_TREES_LEFT_OUT",
    "PACKAGES",
    "PROGRAMS",
    "STDLIB_LEFT_OUT",
]

# From Debian's main archive. `linux-image-amd64` is the kernel that Debian signs for Secure Boot.
# The libraries are what our own compiled modules link with; those of programs come by themselves.
PACKAGES = (
    "linux-image-amd64",
    "busybox-static",
    "kmod",
    "python3",
    "fdisk",
    "gdisk",
    "util-linux",
    "efibootmgr",
    "dmidecode",
    "ethtool",
    "libisal2",
    "libsodium23",
)

# From non-free-firmware: what wired network cards load. Left out, with a sentence, where the component is missing.
FIRMWARE_PACKAGES = (
    "firmware-bnx2",
    "firmware-bnx2x",
    "firmware-cavium",
    "firmware-misc-nonfree",
    "firmware-qlogic",
    "firmware-realtek",
)

# Programs, by path with /bin, /sbin and /lib merged into /usr. Shells and everyday tools are busybox applets.
PROGRAMS = (
    "usr/bin/busybox",
    "usr/bin/efibootmgr",
    "usr/bin/kmod",
    "usr/bin/lsblk",
    "usr/bin/python3.[0-9]*",
    "usr/sbin/blkdiscard",
    "usr/sbin/depmod",
    "usr/sbin/dmidecode",
    "usr/sbin/ethtool",
    "usr/sbin/modprobe",
    "usr/sbin/sfdisk",
    "usr/sbin/sgdisk",
    "usr/sbin/wipefs",
)

# Parts of Python's library that an agent without a terminal, a database or TLS never imports.
STDLIB_LEFT_OUT = (
    "EXTERNALLY-MANAGED",
    "LICENSE.txt",
    "__phello__",
    "_aix_support.py",
    "_osx_support.py",
    "_sysconfigdata__linux_*",
    "antigravity.py",
    "asyncio",
    "config-*",
    "ctypes/test",
    "curses",
    "dbm",
    "distutils",
    "doctest.py",
    "ensurepip",
    "idlelib",
    "imaplib.py",
    "lib-dynload/_codecs_*",
    "lib-dynload/_crypt.*",
    "lib-dynload/_ctypes_test.*",
    "lib-dynload/_curses*",
    "lib-dynload/_dbm.*",
    "lib-dynload/_gdbm.*",
    "lib-dynload/_hashlib.*",
    "lib-dynload/_multibytecodec.*",
    "lib-dynload/_sqlite3.*",
    "lib-dynload/_ssl.*",
    "lib-dynload/_test*",
    "lib-dynload/_tkinter.*",
    "lib-dynload/_xx*",
    "lib-dynload/audioop.*",
    "lib-dynload/nis.*",
    "lib-dynload/ossaudiodev.*",
    "lib-dynload/readline.*",
    "lib-dynload/xxlimited*",
    "lib2to3",
    "mailbox.py",
    "msilib",
    "nntplib.py",
    "pydoc_data",
    "sitecustomize.py",
    "smtpd.py",
    "sqlite3",
    "test",
    "tkinter",
    "turtle.py",
    "turtledemo",
    "unittest",
    "venv",
    "wsgiref",
    "xmlrpc",
)

# Kernel modules by path below kernel/, with wildcards: wired network cards, storage that a machine boots from,
# keyboards for the rescue shell, and the filesystems of the environment and of an EFI system partition.
MODULES = (
    "arch/x86/crypto/crc32c-intel.ko*",
    "arch/x86/crypto/crct10dif-pclmul.ko*",
    "crypto/crc32c_generic.ko*",
    "crypto/crct10dif_*.ko*",
    "drivers/ata/*",
    "drivers/block/loop.ko*",
    "drivers/block/mtip32xx/*",
    "drivers/block/virtio_blk.ko*",
    "drivers/block/xen-blkfront.ko*",
    "drivers/hid/hid-generic.ko*",
    "drivers/hid/hid-hyperv.ko*",
    "drivers/hid/usbhid/usbhid.ko*",
    "drivers/hv/hv_vmbus.ko*",
    "drivers/input/serio/hyperv-keyboard.ko*",
    "drivers/message/fusion/mptbase.ko*",
    "drivers/message/fusion/mptsas.ko*",
    "drivers/message/fusion/mptscsih.ko*",
    "drivers/message/fusion/mptspi.ko*",
    "drivers/mmc/core/*",
    "drivers/mmc/host/cqhci.ko*",
    "drivers/mmc/host/sdhci*",
    "drivers/net/ethernet/*",
    "drivers/net/hyperv/*",
    "drivers/net/mdio/*",
    "drivers/net/mii.ko*",
    "drivers/net/pcs/*",
    "drivers/net/phy/*",
    "drivers/net/usb/*",
    "drivers/net/virtio_net.ko*",
    "drivers/net/vmxnet3/*",
    "drivers/net/xen-netfront.ko*",
    "drivers/nvme/host/nvme-core.ko*",
    "drivers/nvme/host/nvme.ko*",
    "drivers/pci/controller/*",
    "drivers/scsi/*",
    "drivers/usb/common/*",
    "drivers/usb/core/*",
    "drivers/usb/host/*",
    "drivers/usb/storage/uas.ko*",
    "drivers/usb/storage/usb-storage.ko*",
    "drivers/virtio/virtio*",
    "fs/efivarfs/*",
    "fs/fat/*",
    "fs/nls/nls_ascii.ko*",
    "fs/nls/nls_cp437.ko*",
    "fs/nls/nls_iso8859-1.ko*",
    "fs/nls/nls_utf8.ko*",
    "fs/squashfs/*",
)

# Of those directories, what is never loaded: disks that are not the machine's own (Fibre Channel, iSCSI, FCoE: an
# agent must not write to a SAN), tapes and optical drives, phones and radio modems, test drivers, PCMCIA.
MODULES_LEFT_OUT = (
    "drivers/ata/pata_pcmcia.ko*",
    "drivers/mmc/core/sdio_uart.ko*",
    "drivers/net/ethernet/8390/*_cs.ko*",
    "drivers/net/ethernet/mellanox/mlxsw/*",
    "drivers/net/phy/sfp.ko*",
    "drivers/net/usb/cdc-phonet.ko*",
    "drivers/net/usb/hso.ko*",
    "drivers/net/usb/huawei_cdc_ncm.ko*",
    "drivers/net/usb/qmi_wwan.ko*",
    "drivers/net/usb/sierra_net.ko*",
    "drivers/scsi/*iscsi*",
    "drivers/scsi/aic94xx/*",
    "drivers/scsi/be2iscsi/*",
    "drivers/scsi/bfa/*",
    "drivers/scsi/bnx2fc/*",
    "drivers/scsi/bnx2i/*",
    "drivers/scsi/ch.ko*",
    "drivers/scsi/csiostor/*",
    "drivers/scsi/cxgbi/*",
    "drivers/scsi/device_handler/*",
    "drivers/scsi/elx/*",
    "drivers/scsi/fcoe/*",
    "drivers/scsi/fdomain*",
    "drivers/scsi/fnic/*",
    "drivers/scsi/libfc/*",
    "drivers/scsi/lpfc/*",
    "drivers/scsi/mpi3mr/*_test*",
    "drivers/scsi/osst.ko*",
    "drivers/scsi/pcmcia/*",
    "drivers/scsi/qedf/*",
    "drivers/scsi/qedi/*",
    "drivers/scsi/qla2xxx/*",
    "drivers/scsi/qla4xxx/*",
    "drivers/scsi/scsi_debug.ko*",
    "drivers/scsi/scsi_transport_fc.ko*",
    "drivers/scsi/sr_mod.ko*",
    "drivers/scsi/st.ko*",
    "drivers/usb/host/sl811*",
    "drivers/usb/host/u132*",
    "drivers/virtio/virtio_balloon.ko*",
    "drivers/virtio/virtio_input.ko*",
    "drivers/virtio/virtio_mem.ko*",
    "drivers/virtio/virtio_vdpa.ko*",
)

# Where nothing lies that a module of the above needs: not even unpacked, which halves the work.
MODULE_TREES_LEFT_OUT = (
    "drivers/bluetooth/",
    "drivers/gpu/",
    "drivers/iio/",
    "drivers/isdn/",
    "drivers/media/",
    "drivers/net/wireless/",
    "drivers/staging/",
    "sound/",
)

# Firmware of cards that are not wired network cards of a machine to be imaged (SmartNIC offload programs).
FIRMWARE_LEFT_OUT = ("netronome/*",)

# Loaded by the first stage, before the real root is there.
EARLY_MODULES = ("drivers/block/loop.ko*", "fs/squashfs/squashfs.ko*")

# The part of pxed that the agent imports (a test imports the agent with nothing else), and what that needs.
AGENT_MODULES = (
    "__init__.py",
    "agent/*.py",
    "errors.py",
    "images/__init__.py",
    "images/chunk.py",
    "images/manifest.py",
    "types.py",
)
AGENT_DISTRIBUTIONS = ("blake3", "msgspec", "zstandard")
DISTRIBUTION_LEFT_OUT = ("*.pyi", "py.typed", "*/__pycache__/*", "zstandard/_cffi*", "zstandard/backend_cffi.py")
