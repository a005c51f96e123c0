//! What a mount of this store elsewhere asks for, and S3 has no call for.
//!
//! ```text
//! GET  /bucket?forebay-space
//! POST /bucket/TO?forebay-rename=replace&forebay-from=FROM
//! ```
//! Both are signed as any request is. Paths are those of the mount: without a slash at their end.
//! Parameters are forebay's own and no headers are, because a node takes those away that nodes and
//! origins speak to each other with. A rename is a `POST`, which no service takes for a
//! `PutObject`.

use forebay_store::api::{Rename, RenameMode};

use super::Context;
use crate::auth::Authenticated;
use crate::error::{Result, S3Error};
use crate::reply::{self, Response};
use crate::xml::write::{self, Renamed, Space};

/// Says how much space there is.
pub(super) fn space(cx: &Context<'_>, auth: &Authenticated) -> Result<Response> {
    cx.bucket(auth)?;
    let usage = cx.objects().space()?;
    let document = Space {
        total: usage.total,
        available: usage.available,
        inodes_available: usage.inodes_available,
    };
    Ok(reply::xml(write::document("ForebaySpace", &document)))
}

/// Gives a file or a directory another name, in one step.
pub(super) async fn rename(cx: &Context<'_>, auth: &Authenticated) -> Result<Response> {
    let bucket = cx.bucket(auth)?;
    let to = cx.key()?;
    let query = &cx.request.query;
    let name = "forebay-rename";
    let mode = match query.get(name).unwrap_or_default() {
        "replace" => RenameMode::Replace,
        "no-replace" => RenameMode::NoReplace,
        "exchange" => RenameMode::Exchange,
        other => return Err(S3Error::argument(name, other, "Unknown way to rename.")),
    };
    let from = query.get("forebay-from").unwrap_or_default();
    let is_path = |path: &str| !path.is_empty() && !path.ends_with('/');
    if !is_path(from) || !is_path(to.as_str()) {
        return Err(S3Error::argument("forebay-from", from, "Not a path."));
    }
    let rename = Rename {
        bucket: bucket.id,
        from: from.to_owned(),
        to: to.as_str().to_owned(),
        mode,
    };
    cx.objects().rename_path(rename).await?;
    let document = Renamed {
        from: from.to_owned(),
    };
    Ok(reply::xml(write::document("ForebayRenamed", &document)))
}
