//! Reading and writing the identity's files, with errors that name them. The Unix part is the mode of secret files.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::Path,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::{IdentityError, Leaf};
use crate::check::{check, with_check};

/// More than any of our files needs.
const LONGEST: u64 = 64 << 10;

fn named(path: &Path) -> impl Fn(io::Error) -> IdentityError {
    move |error| IdentityError::File { path: path.to_owned(), error }
}

fn read(path: &Path) -> Result<String, IdentityError> {
    let len = fs::metadata(path).map_err(named(path))?.len();
    if len > LONGEST {
        return Err(IdentityError::Content { path: path.to_owned(), why: format!("{len} bytes are too many for a key or a certificate") });
    }
    fs::read_to_string(path).map_err(named(path))
}

pub(super) fn read_secret(path: &Path) -> Result<String, IdentityError> {
    match mode::of(path).map_err(named(path))? {
        mode if mode & 0o077 != 0 => Err(IdentityError::Readable { path: path.to_owned(), mode }),
        _ => read(path),
    }
}

/// At least one.
pub(super) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    certificates_in(&read(path)?).map_err(|why| IdentityError::Content { path: path.to_owned(), why })
}

/// The certificates in the text of a file, at least one.
pub(crate) fn certificates_in(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    check(text)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let all = all.map_err(|e| format!("not a certificate in PEM: {e}"))?;
    if all.is_empty() {
        return Err("not a certificate in PEM: there is none in it".to_owned());
    }
    all.iter().try_for_each(|one| Leaf::parse(one).map(drop)).map_err(|e| e.to_string())?;
    Ok(all)
}

pub(super) fn write_certificates(path: &Path, certificates: &[CertificateDer<'_>]) -> Result<(), IdentityError> {
    write(path, &pem_of(certificates), 0o644)
}

/// The text of a file with these certificates.
pub(crate) fn pem_of(certificates: &[CertificateDer<'_>]) -> String {
    let mut pem = String::new();
    for certificate in certificates {
        let text = BASE64_STANDARD.encode(certificate);
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            pem.push_str(line);
            pem.push('\n');
            rest = after;
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    pem
}

/// Written beside, synced, renamed: a crash leaves the old file or the new one.
pub(super) fn write(path: &Path, text: &str, mode: u32) -> Result<(), IdentityError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    let result = (|| {
        if let Err(error) = fs::remove_file(beside)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        mode::set(&mut options, mode);
        let mut file: File = options.open(beside)?;
        file.write_all(with_check(text).as_bytes())?;
        file.sync_all()?;
        fs::rename(beside, path)?;
        mode::sync_dir(path)
    })();
    result.map_err(named(path))
}

#[cfg(unix)]
mod mode {
    use std::{
        fs::{self, File, OpenOptions},
        io,
        os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
        path::Path,
    };

    pub(super) fn of(path: &Path) -> io::Result<u32> {
        Ok(fs::metadata(path)?.mode() & 0o777)
    }

    pub(super) fn set(options: &mut OpenOptions, mode: u32) {
        options.mode(mode);
    }

    /// The rename itself must outlive a power cut.
    pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
        path.parent().filter(|dir| !dir.as_os_str().is_empty()).map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    }
}

#[cfg(not(unix))]
mod mode {
    use std::{fs::OpenOptions, io, path::Path};

    /// Access lists of the state directory protect the key here.
    pub(super) fn of(path: &Path) -> io::Result<u32> {
        std::fs::metadata(path).map(|_| 0)
    }

    pub(super) fn set(_: &mut OpenOptions, _: u32) {}

    pub(super) fn sync_dir(_: &Path) -> io::Result<()> {
        Ok(())
    }
}
