//! Where an upload's parts go: a place each in one sparse file, as long as they fit.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::shared_sync::SharedSync;
use crate::disk::DiskFile;
use crate::entry::Upload;
use crate::error::{Error, IoContext, Result};
use crate::index::{self, extent};
use crate::limits::{PART_NUMBER_MAX, PUT_SIZE_MAX};
use crate::name::UploadId;
use crate::shared::{Shared, lock};
use crate::stage::Body;
use crate::store::Store;

/// Last byte of an upload's file that a part may have: what every file system here can address.
const PLACE_MAX: u64 = 1 << 40;
/// What is held in memory of an upload's file.
#[derive(Debug, Default)]
pub(crate) struct Place {
    file: Option<Arc<DiskFile>>,
    pub(super) part_size: Option<u64>,
    /// Numbers of parts whose place is taken.
    taken: HashSet<u16>,
    syncs: Arc<SharedSync>,
}

/// The uploads that parts arrive for.
#[derive(Debug, Default)]
pub(crate) struct OpenUploads {
    pub(super) places: Mutex<HashMap<UploadId, Arc<Mutex<Place>>>>,
}

impl OpenUploads {
    pub(crate) fn forget(&self, id: UploadId) {
        lock(&self.places).remove(&id);
    }

    /// Fails if a sync of the file that the upload's parts share has failed: which of them that
    /// has lost is unknown.
    ///
    /// Forgotten at a restart, as is every part that was not acknowledged before the failure.
    pub(super) fn require_sound(&self, id: UploadId) -> Result<()> {
        let place = lock(&self.places).get(&id).map(Arc::clone);
        match place {
            Some(place) if lock(&place).syncs.has_failed() => {
                Err(Error::UploadDamaged(id.to_string()))
            }
            _ => Ok(()),
        }
    }
}

/// Holds a part's place while its body arrives; gives it back unless the part was kept.
///
/// Every write to the place holds it too: one that is still running when its request has gone away
/// must not fall into the body that has the place next.
#[derive(Debug)]
pub(crate) struct Claim {
    upload: UploadId,
    place: Arc<Mutex<Place>>,
    number: u16,
    kept: AtomicBool,
}

impl Claim {
    pub(super) fn keep(&self) {
        self.kept.store(true, Ordering::Release);
    }

    /// Makes the part durable. Blocks.
    pub(super) fn sync_blocking(&self, shared: &Shared, file: &DiskFile) -> Result<()> {
        let syncs = Arc::clone(&lock(&self.place).syncs);
        if syncs.sync_blocking(|| shared.sync_all(file))? {
            Ok(())
        } else {
            Err(Error::UploadDamaged(self.upload.to_string()))
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Acquire) {
            lock(&self.place).taken.remove(&self.number);
        }
    }
}

impl Store {
    /// Takes a part's place in the upload's file, if it can have it. Blocks.
    pub(super) fn claim(
        &self,
        upload: &Upload,
        number: u16,
        len: Option<u64>,
    ) -> Result<Option<Body>> {
        let place = self.place(upload)?;
        self.uploads.require_sound(upload.id)?;
        let Some(len) = len.filter(|len| (1..=PUT_SIZE_MAX).contains(len)) else {
            return Ok(None);
        };
        let mut held = lock(&place);
        let part_size = *held.part_size.get_or_insert(len);
        let offset = u64::from(number - 1) * part_size;
        if len > part_size || offset + len > PLACE_MAX || held.taken.contains(&number) {
            return Ok(None);
        }
        let file = match &held.file {
            Some(file) => Arc::clone(file),
            None => self.open_upload_file(upload, &mut held)?,
        };
        held.taken.insert(number);
        drop(held);
        let claim = Arc::new(Claim {
            upload: upload.id,
            place,
            number,
            kept: AtomicBool::new(false),
        });
        Ok(Some(Body::Place {
            file,
            id: upload.file,
            offset,
            claim,
        }))
    }

    fn open_upload_file(&self, upload: &Upload, held: &mut Place) -> Result<Arc<DiskFile>> {
        let path = self.shared.layout.path(upload.file, false);
        let file = match self.shared.disk.create(&path) {
            Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => {
                self.shared.disk.open(&path).io("open", &path)?
            }
            file => file.io("create", &path)?,
        };
        held.file = Some(Arc::clone(&file));
        Ok(file)
    }

    /// What is held of an upload's file; from the index after a restart.
    fn place(&self, upload: &Upload) -> Result<Arc<Mutex<Place>>> {
        if let Some(place) = lock(&self.uploads.places).get(&upload.id) {
            return Ok(Arc::clone(place));
        }
        let place = self.shared.index.read(|connection| {
            if !index::upload::exists(connection, upload.id)? {
                return Err(Error::NoSuchUpload(upload.id.to_string()));
            }
            let part_size = index::upload::part_size(connection, upload.id)?;
            let mut taken = HashSet::new();
            for stored in
                index::upload::parts(connection, upload.id, 0, usize::from(PART_NUMBER_MAX))?
            {
                let extents = extent::load(connection, &stored.extent_ids)?;
                if extents.iter().any(|extent| extent.file == upload.file) {
                    taken.insert(stored.part.number);
                }
            }
            Ok(Place {
                part_size,
                taken,
                ..Place::default()
            })
        })?;
        let mut places = lock(&self.uploads.places);
        Ok(Arc::clone(
            places
                .entry(upload.id)
                .or_insert_with(|| Arc::new(Mutex::new(place))),
        ))
    }
}
